"""The latest actions of people and programs, for `dagorama actions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dagorama.cli.base import Answer, broker_command
from dagorama.cli.output import cut_note
from dagorama.client.display.tables import table, time_text, uuid_text

if TYPE_CHECKING:
    from dagorama.api import broker_pb2
    from dagorama.client.connection import Connection

#: Actions shown without --limit.
DEFAULT_LIMIT = 100


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="Most actions to list; 0 lists all.",
)
@broker_command
def actions(broker: Connection, limit: int) -> Answer:
    """List what was cancelled, retried, rebound, paused, drained, deleted and so on, the latest action first.

    The broker keeps 10,000 actions. It knows callers by the names of their tokens.
    """
    found, total = broker.list_actions(limit)
    rows = list(map(_row, found))
    note = cut_note(limit, total, "actions") if total > len(found) else ""
    heads = ("time", "by", "action", "target", "nodes", "instance")
    return Answer(table(heads, rows) if rows else "no actions", list(map(_data, found)), note)


def _row(action: broker_pb2.Action) -> tuple[str, ...]:
    instance = uuid_text(action.instance) or ""
    return time_text(action.time), action.by or "-", action.action, action.target, f"{action.count}", instance


def _data(action: broker_pb2.Action) -> dict[str, object]:
    return {
        "number": action.number, "time": action.time, "by": action.by or None, "action": action.action,
        "target": action.target or None, "nodes": action.count, "instance": uuid_text(action.instance),
    }  # fmt: skip
