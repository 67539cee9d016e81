"""Run nodes with spans: one for each attempt of a traced node, the child of the span that created the node.

The rule: nodes that are not traced take the way of every other worker, and without an SDK in this process so do all.
Their children inherit the trace context that they have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from time import time_ns
from typing import TYPE_CHECKING
from uuid import UUID

from dagorama.client.large_values import LargeValues
from dagorama.context import OpenLog, RunningNode
from dagorama.errors import RetryLater
from dagorama.graph.scope import AttemptScope
from dagorama.settings import traces
from dagorama.worker.child.cached import LookUp
from dagorama.worker.child.call import Call
from dagorama.worker.child.executor import Executor
from dagorama.worker.child.outbox import Outbox

if TYPE_CHECKING:
    from opentelemetry.trace import Span

#: Contexts of attempts that are remembered for nodes that run here after them.
MOST_REMEMBERED = 1_000


class TracedExecutor(Executor):
    """An executor that makes a span for each attempt of a traced node."""

    def __init__(self, outbox: Outbox, large: LargeValues, open_log: OpenLog | None = None) -> None:
        super().__init__(outbox, large, open_log)
        self._is_wanted = traces()
        self._spans: dict[int, Span] = {}  # of running attempts
        self._contexts: dict[int, str] = {}  # of ended attempts whose values are passed on in memory, by node

    def _scope(self, call: Call) -> AttemptScope:
        scope = super()._scope(call)
        if call.trace and self._is_wanted and (span := self._started(call)) is not None:
            from dagorama.graph.tracing import to_text

            self._spans[call.attempt] = span
            scope.trace = to_text(span)
        return scope

    def _started(self, call: Call) -> Span | None:
        """Start the span of an attempt; None if no SDK is set up in this process, or it fails."""
        from opentelemetry.trace import SpanKind

        from dagorama.graph import tracing

        own = tracing.tracer()
        if own is None:
            return None
        texts = [*call.links, *filter(None, [self._contexts.pop(source, "") for source in call.beside])]
        with tracing.optional():
            return own.start_span(
                f"process {call.work.queue}", tracing.from_text(call.trace), SpanKind.CONSUMER, _attributes(call),
                tracing.links(texts), start_time=time_ns(),
            )  # fmt: skip
        return None

    def _enter(self, scope: AttemptScope, run: RunningNode) -> None:
        super()._enter(scope, run)
        attempt = run.call.attempt if run.call is not None else 0
        if self._spans and (span := self._spans.get(attempt)) is not None:
            from opentelemetry.context import attach
            from opentelemetry.trace import set_span_in_context

            attach(set_span_in_context(span))  # for the rest of this copy of the context

    # --- outcomes -----------------------------------------------------------------------------------

    def _ended(self, call: Call, scope: AttemptScope, result: object, started: int) -> int:
        if not self._spans or call.attempt not in self._spans:
            return super()._ended(call, scope, result, started)
        if scope.trace:
            self.outbox.traces[call.attempt] = scope.trace
            if call.node in self._handed_on:
                self._remember(call.node, scope.trace)
        ended = super()._ended(call, scope, result, started)
        self._end(call, None)
        return ended

    def _ended_badly(self, call: Call, error: BaseException, started: int) -> int:
        self._end(call, error)
        return super()._ended_badly(call, error, started)

    def _looked_up(self, call: Call, asked: LookUp) -> int:
        self._spans.pop(call.attempt, None)  # it has not run
        return super()._looked_up(call, asked)

    def _ended_cancelled(self, call: Call) -> int:
        self._end(call, None, cancelled=True)
        return super()._ended_cancelled(call)

    def _end(self, call: Call, error: BaseException | None, *, cancelled: bool = False) -> None:
        span = self._spans.pop(call.attempt, None)
        if span is None:
            return
        from dagorama.graph import tracing

        if cancelled or issubclass(type(error), RetryLater):
            span.set_attribute("dagorama.outcome", "cancelled" if cancelled else "retry_later")
        elif error is not None:
            self.outbox.traces.pop(call.attempt, None)
            tracing.note_error(span, error)
        tracing.end(span)

    def _remember(self, node: int, trace: str) -> None:
        if len(self._contexts) >= MOST_REMEMBERED:
            del self._contexts[next(iter(self._contexts))]
        self._contexts[node] = trace


def name_spans_in_logs() -> None:
    """Give all log records of this process the attributes `dagorama_trace_id` and `dagorama_span_id`, in hexadecimal.

    Both are empty outside of traced nodes.
    """
    logging.setLogRecordFactory(_naming_the_span(logging.getLogRecordFactory()))


def _attributes(call: Call) -> dict[str, str | int]:
    from dagorama.graph.tracing import messaging

    attributes = messaging("process", call.work.queue)
    attributes |= {
        "messaging.message.id": str(UUID(bytes=call.id)),
        "dagorama.function.name": call.work.name,
        "dagorama.function.hash": call.work.hash,
        "dagorama.instance.id": str(UUID(bytes=call.instance)),
        "dagorama.attempt": call.runs + 1,
    }
    if call.work.taint:
        attributes["dagorama.taint"] = call.work.taint
    return attributes


def _naming_the_span(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    @wraps(make)
    def made(*arguments: object, **named: object) -> logging.LogRecord:
        from opentelemetry.trace import get_current_span

        record = make(*arguments, **named)
        context = get_current_span().get_span_context()
        record.dagorama_trace_id = f"{context.trace_id:032x}" if context.is_valid else ""
        record.dagorama_span_id = f"{context.span_id:016x}" if context.is_valid else ""
        return record

    return made
