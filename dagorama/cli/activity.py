"""`dagorama watch` without an instance: the queues of the broker with their nodes, again whenever they change."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from dagorama.api import broker_pb2
from dagorama.cli.output import Output, document, say
from dagorama.client.display.progress import PAUSE
from dagorama.client.display.tables import harmless, pluralize, table
from dagorama.models.state import State

if TYPE_CHECKING:
    from dagorama.client.connection import Connection

HEADS = ("queue", "queued", "running", "delayed", "paused")


def show_activity(broker: Connection, queue: str, output: Output) -> None:
    """Show the queues of the broker until it is interrupted."""
    replies = broker.watch_queues(queue)
    if output is not Output.TABLE:
        for reply in replies:
            click.echo(json.dumps(document(activity_data(reply))))
    elif sys.stdout.isatty():
        _redraw(replies)
    else:
        _print(replies)


def _redraw(replies: Iterator[broker_pb2.Activity]) -> None:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        for reply in replies:
            drawn = Table(caption=Text(summary(reply)))
            for head in HEADS:
                drawn.add_column(head, justify="left" if head in ("queue", "paused") else "right", overflow="fold")
            for row in _rows(reply):
                drawn.add_row(*(Text(harmless(cell)) for cell in row))
            live.update(drawn, refresh=True)


def _print(replies: Iterator[broker_pb2.Activity]) -> None:
    at = 0.0
    for reply in replies:
        if (now := time.monotonic()) >= at:
            say(f"{table(HEADS, _rows(reply))}\n{summary(reply)}\n")
            at = now + PAUSE


def _rows(reply: broker_pb2.Activity) -> list[tuple[str, ...]]:
    rows = [
        (each.queue, *(f"{n}" if n else "" for n in (each.queued, each.claimed, each.delayed)),
         _paused(each))
        for each in reply.queues
    ]  # fmt: skip
    return [*rows, (f"{reply.left_out} more queues", "", "", "", "")] if reply.left_out else rows


def _paused(queue: broker_pb2.QueueInfo) -> str:
    if not queue.paused_since:
        return ""
    return f"paused by {queue.paused_by}" if queue.paused_by else "paused"


def summary(reply: broker_pb2.Activity) -> str:
    """Return the counts of the whole broker in one line."""
    nodes = dict(zip(State, reply.nodes, strict=True))
    ended = f"{nodes[State.COMPLETED]:,} completed and {nodes[State.FAILED]:,} failed since the broker started"
    at = f"{pluralize(reply.workers, 'worker', 'workers')} with {pluralize(reply.slots, 'slot', 'slots')}"
    return f"{at}; {pluralize(reply.instances, 'instance', 'instances')} unfinished; {ended}"


def activity_data(reply: broker_pb2.Activity) -> dict[str, object]:
    """Return a reply as JSON data."""
    return {
        "queues": [queue_data(each) for each in reply.queues],
        "left_out": reply.left_out,
        "nodes": {state.name: count for state, count in zip(State, reply.nodes, strict=True)},
        "instances": reply.instances, "workers": reply.workers, "slots": reply.slots,
    }  # fmt: skip


def queue_data(queue: broker_pb2.QueueInfo) -> dict[str, object]:
    """Return a queue as JSON data."""
    return {
        "queue": queue.queue, "queued": queue.queued, "claimed": queue.claimed, "delayed": queue.delayed,
        "taints": list(queue.taints), "paused_since": queue.paused_since or None, "paused_by": queue.paused_by or None,
    }  # fmt: skip
