"""Spans of OpenTelemetry: how submissions and attempts are described, and how their contexts travel as text.

The rule: this module is imported only if DAGORAMA_TRACES is set, and makes spans only if the process has set up an SDK.
An instance is traced if the span of its submission is sampled; all of its nodes follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dagorama.logging import get_logger
from dagorama.settings import Settings

if TYPE_CHECKING:
    from dagorama.graph.node_batch import NodeBatch

SYSTEM = "dagorama"
#: Characters of a tracestate; the standard lets longer ones be dropped.
LONGEST_TRACESTATE = 512
_W3C = TraceContextTextMapPropagator()

Attributes = dict[str, str | int]

_has_warned = False


@contextmanager
def optional() -> Iterator[None]:
    """Continue without the span if the SDK fails; warn the first time.

    Samplers and span processors are user code, and the work that they trace must end as it does without them.
    """
    global _has_warned
    try:
        yield
    except Exception as error:
        if not _has_warned:
            _has_warned = True
            kind = type(error).__name__
            get_logger().warning("spans are lost, because OpenTelemetry failed in this process: %s: %s", kind, error)


def tracer() -> Tracer | None:
    """Return the tracer of this process; None if no SDK is set up here, or it cannot be loaded."""
    with optional():
        provider = trace.get_tracer_provider()
        return None if isinstance(provider, trace.ProxyTracerProvider) else provider.get_tracer(SYSTEM, _version())
    return None


@cache
def _version() -> str:
    return version("dagorama")


# --- contexts as text -----------------------------------------------------------------------------------


def to_text(span: Span) -> str:
    """Return the context of a span, a traceparent and maybe a tracestate; empty if the span is not sampled."""
    if not span.get_span_context().trace_flags.sampled:
        return ""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span, Context()))
    parent, state = carrier["traceparent"], carrier.get("tracestate", "")
    return f"{parent} {state}" if state and len(state) <= LONGEST_TRACESTATE else parent


def from_text(text: str) -> Context:
    """Return the context that `to_text` has written; an empty one if it is malformed."""
    parent, _, state = text.partition(" ")
    return _W3C.extract({"traceparent": parent, "tracestate": state}, Context())


def links(texts: Iterable[str]) -> list[Link]:
    """Return links to the spans of these contexts, without malformed ones."""
    contexts = (trace.get_current_span(from_text(text)).get_span_context() for text in texts)
    return [Link(context) for context in contexts if context.is_valid]


# --- attributes -----------------------------------------------------------------------------------------


def messaging(operation: str, queue: str) -> Attributes:
    """Return the attributes of the conventions for messaging."""
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
    }


def note_error(span: Span, error: BaseException) -> None:
    """Record an exception as an event, and as the status of the span."""
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    span.set_attribute("error.type", name)
    try:
        text = str(error)
        span.record_exception(error)
    except Exception:  # an exception of user code may not even have a text, and the node must fail with its own
        text = "<its str() failed>"
        span.add_event("exception", {"exception.type": name, "exception.message": text})
    span.set_status(trace.Status(trace.StatusCode.ERROR, text))


def end(span: Span) -> None:
    """End a span."""
    with optional():
        span.end()


# --- submissions ----------------------------------------------------------------------------------------


@contextmanager
def sending(runs: Sequence[NodeBatch]) -> Iterator[None]:
    """Trace a submission for the length of the block, and let its nodes follow if its span is sampled."""
    own, first = tracer(), next((run for run in runs if len(run)), None)
    if own is None or first is None:
        yield
        return
    function, attributes, span = first.function_of(0), _sent(runs, first), None
    with optional():
        span = own.start_span(f"send {function.queue}", kind=SpanKind.PRODUCER, attributes=attributes)
    if span is None:
        yield
        return
    text = to_text(span)
    for run in runs:
        run.trace = text
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield
    except BaseException as error:
        note_error(span, error)
        raise
    finally:
        end(span)


def _sent(runs: Sequence[NodeBatch], first: NodeBatch) -> Attributes:
    function, settings = first.function_of(0), Settings.from_env()
    attributes = messaging("send", function.queue)
    attributes |= {"server.address": settings.host, "server.port": settings.port}
    attributes["dagorama.function.name"] = function.name
    attributes["messaging.batch.message_count"] = sum(map(len, runs))
    if len({run.instance for run in runs}) == 1:
        attributes["dagorama.instance.id"] = str(UUID(bytes=first.instance))
    return attributes
