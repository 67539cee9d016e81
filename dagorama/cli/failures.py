"""Failed nodes grouped by their errors, for `dagorama failures`.

The rule: the broker groups them; nothing is derived here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import click

from dagorama.cli.base import Answer, id_digits, named_command, node_name, whole_ids
from dagorama.cli.output import cut_note
from dagorama.cli.parameters import filter_option
from dagorama.client.display.tables import time_text, uuid_text

if TYPE_CHECKING:
    from dagorama.api import broker_pb2
    from dagorama.client.connection import Connection

#: Groups shown without --limit, and the most that the broker returns.
DEFAULT_LIMIT, MOST_GROUPS = 20, 1_000


@click.command()
@click.argument("instance", type=id_digits, required=False)
@filter_option("--definition", help="Only instances of this definition, 'package.module:Class'.")
@click.option(
    "--limit", type=click.IntRange(0, MOST_GROUPS), default=DEFAULT_LIMIT, show_default=True,
    help=f"Most groups to show; 0 shows up to {MOST_GROUPS}.",
)  # fmt: skip
@named_command
def failures(broker: Connection, instance: str | None, definition: str, limit: int) -> Answer:
    """Group failed nodes by function, exception and message, of INSTANCE or of all instances.

    Messages that differ in numbers, IDs and quoted text only are one group. Nodes that failed because of another node
    are counted as downstream of it. With -o name, print one node of each group.
    """
    id = whole_ids(broker, instance)[0] if instance is not None else b""
    found = broker.list_failures(id, definition, limit or MOST_GROUPS)
    data = {
        "nodes": found.nodes, "downstream": found.downstream, "groups_left_out": found.left_out, "more": found.more,
        "groups": [_data(group) for group in found.groups],
    }  # fmt: skip
    names = [f"{UUID(bytes=group.example.instance)}/{group.example.ordinal}" for group in found.groups]
    return Answer(_text(found), data, _note(found), names, [_data(group) for group in found.groups])


def _text(found: broker_pb2.ListFailuresReply) -> str:
    if not found.groups:
        return "no failures"
    heading = _counted(found.nodes, "failed node")
    if found.downstream:
        heading += f", {_counted(found.downstream, 'node')} downstream"
    return "\n\n".join([heading, *map(_block, found.groups)])


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _block(group: broker_pb2.FailureGroup) -> str:
    error = ": ".join(filter(None, [group.type.removeprefix("builtins."), group.message]))
    downstream = f", {group.downstream:,} downstream" if group.downstream else ""
    of = f" in {group.instances:,} instances" if group.instances > 1 else ""
    span = time_text(group.first)
    if group.last > group.first:
        span = f"{span} to {time_text(group.last)}"
    example = f": {group.example_message}" if group.example_message != group.message else ""
    lines = [
        f"{group.nodes:,} x {group.function.rpartition(':')[2] or '?'}{of}{downstream}",
        error or "(no message)",
        f"such as {_example(group)}{example}",
        *(f"  {line}" for line in group.raised_at.splitlines()),
        span,
    ]
    return "\n".join([lines[0], *(f"  {line}" for line in lines[1:])])


def _example(group: broker_pb2.FailureGroup) -> str:
    return node_name(group.example.instance, group.example.ordinal, group.example.node)


def _note(found: broker_pb2.ListFailuresReply) -> str:
    notes = []
    if found.left_out:
        shown = len(found.groups)
        notes.append(cut_note(shown, shown + found.left_out, "groups"))
    if found.more:
        notes.append(f"Only the latest {found.nodes:,} failed nodes were looked at; name an INSTANCE for its failures.")
    return "\n".join(notes)


def _data(group: broker_pb2.FailureGroup) -> dict[str, object]:
    return {
        "function": group.function, "type": group.type, "message": group.message, "nodes": group.nodes,
        "downstream": group.downstream, "instances": group.instances, "first_at": group.first, "last_at": group.last,
        "example": {
            "name": _example(group), "node": uuid_text(group.example.node),
            "instance": uuid_text(group.example.instance), "message": group.example_message,
            "raised_at": group.raised_at or None,
        },
    }  # fmt: skip
