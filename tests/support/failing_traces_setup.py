"""Set up the SDK of OpenTelemetry with a span processor that raises at each "start" or "end" of a span (FAILS_AT).

At the start only in workers: if the span of a submission fails, its nodes are not traced.
"""

import os

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanKind

from tests.support.traced_setup import provider


class Failing(SpanProcessor):
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if os.environ["FAILS_AT"] == "start" and span.kind == SpanKind.CONSUMER:
            raise RuntimeError("no collector")

    def on_end(self, span: ReadableSpan) -> None:
        if os.environ["FAILS_AT"] == "end":
            raise RuntimeError("no collector")


provider.add_span_processor(Failing())
