"""The command that prints what happens in an instance, line by line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from dagorama.cli.base import INSTANCE, broker_options, connect, node_names, report_errors, whole_ids
from dagorama.cli.output import Output, document, say
from dagorama.client.display.tables import time_text, uuid_text
from dagorama.models.events import Event, InstanceEnded, NodeEvent

if TYPE_CHECKING:
    from dagorama.client.connection import Connection


@click.command()
@INSTANCE
@broker_options()
def events(instance: str, host: str | None, port: int | None, output: Output) -> None:
    """Print what happens to the nodes of an instance from now on, until it has ended.

    With -o json or -o jsonl, print one line of JSON for each event. A reader that is too slow loses events, and is told
    how many.
    """
    from dagorama.client.events import Events

    with report_errors():
        broker = connect(host, port)
        for event in Events(broker, whole_ids(broker, instance)[0]):
            say(_text(broker, event) if output is Output.TABLE else json.dumps(document(_data(event))))


def _text(broker: Connection, event: Event) -> str:
    if isinstance(event, NodeEvent):
        name = node_names(broker, [event.node_id.bytes])[event.node_id.bytes]
        attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
        again = f", again at {time_text(event.retry_at)}" if event.retry_at else ""
        reason = f": {event.reason}" if event.reason else ""
        function = event.function.rpartition(":")[2]
        return f"{time_text(event.time)}  {event.kind:<9}  {name}  {function}{attempt}{again}{reason}"
    if isinstance(event, InstanceEnded):
        return f"{time_text(event.time)}  ended{' with failed or cancelled nodes' if event.has_failed else ''}"
    return f"{f'{event.lost:,}' if event.lost is not None else 'some'} events are missing here"


def _data(event: Event) -> dict[str, object]:
    if isinstance(event, NodeEvent):
        return {
            "event": event.kind.value, "node": uuid_text(event.node_id.bytes), "function": event.function,
            "time": event.time, "attempt": event.attempt or None, "reason": event.reason or None,
            "retry_at": event.retry_at or None,
        }  # fmt: skip
    if isinstance(event, InstanceEnded):
        return {"event": "ended", "failed": event.has_failed, "time": event.time}
    return {"event": "gap", "lost": event.lost}
