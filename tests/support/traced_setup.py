"""Set up the SDK of OpenTelemetry, as an application does: each span becomes a line of JSON in the file TRACES_FILE."""

import json
import os

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor


def _line(span: ReadableSpan) -> str:
    return json.dumps(json.loads(span.to_json())) + "\n"


provider = TracerProvider()
file = open(os.environ["TRACES_FILE"], "a", buffering=1)  # noqa: SIM115 - it is open as long as the process
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=file, formatter=_line)))
trace.set_tracer_provider(provider)
