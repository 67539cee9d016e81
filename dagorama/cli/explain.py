"""Explain why a node is not running, or why an instance has not ended, for `dagorama explain`.

The rule: the reasons are the broker's, by whose predicates nodes are granted; nothing is derived here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import click

from dagorama.api.contract import is_hook
from dagorama.cli.base import TARGET, Answer, broker_command, node_names, node_reference, whole_ids
from dagorama.client.display.tables import pluralize, time_text, uuid_text
from dagorama.models.state import State

if TYPE_CHECKING:
    from dagorama.api import broker_pb2
    from dagorama.client.connection import Connection


@click.command()
@TARGET
@click.argument("node", type=node_reference, required=False)
@broker_command
def explain(broker: Connection, instance: str, node: str | None) -> Answer:
    """Explain why NODE is not running; without NODE, what keeps the instance from ending."""
    whole, nodes = whole_ids(broker, instance, [node] if node is not None else [])
    if len(nodes) > 1:
        raise click.UsageError("explain takes one node; the first argument names one already")
    found = broker.explain_node(whole, nodes[0] if nodes else b"")
    names = node_names(broker, set(_ids(found)))
    lines = list(_node(whole, found, names)) if found.node else list(_instance(uuid_text(whole) or "", found))
    if found.schedule:
        lines.insert(0, f"The schedule {found.schedule!r} has started it for {found.scheduled_for}.")
    lines += _causes(found, names)
    if found.more:
        lines.append("There are more nodes than were examined, so the numbers are lower bounds.")
    return Answer("\n".join(lines), {"instance": uuid_text(whole), **_data(found)})


def _ids(found: broker_pb2.Explanation) -> Iterator[bytes]:
    """Yield the IDs of all nodes that an explanation names."""
    yield found.node
    yield from (id for reason in found.reasons for id in reason.node)
    for cause in found.causes:
        yield cause.node
        yield from (id for reason in cause.reasons for id in reason.node)


def _node(instance: bytes, found: broker_pb2.Explanation, names: Mapping[bytes, str]) -> Iterator[str]:
    yield f"{names[found.node]}  {found.function.rpartition(':')[2]}  {State(found.state).name}"
    if is_hook(instance, found.node):
        yield "It is the failure hook of its instance, which has failed."
    if found.since:
        yield f"since {time_text(found.since)}"
    yield from _reasons(found.reasons, names)


def _instance(id: str, found: broker_pb2.Explanation) -> Iterator[str]:
    yield f"instance {id} waits for:" if found.causes else f"instance {id} has no unfinished node"


def _reasons(reasons: Iterable[broker_pb2.Reason], names: Mapping[bytes, str], indent: str = "") -> Iterator[str]:
    for reason in reasons:
        until = f", until {time_text(reason.until)}" if reason.until else ""
        text = reason.text.replace("\n", f"\n{indent}  ")  # the message of an exception may have several lines
        yield f"{indent}- {text}{until} [{reason.code}]"
        yield from (f"{indent}    {names[id]}" for id in reason.node)
        if reason.about > len(reason.node) > 0:
            yield f"{indent}    and {reason.about - len(reason.node)} more"


def _causes(found: broker_pb2.Explanation, names: Mapping[bytes, str]) -> Iterator[str]:
    if found.causes and found.node:
        yield "it ultimately waits for:"
    for cause in found.causes:
        what = f"{pluralize(cause.nodes, 'node', 'nodes')} of {cause.function.rpartition(':')[2]}"
        example = f", such as {names[cause.node]}" if cause.nodes > 1 else f", {names[cause.node]}"
        yield f"  {what}, {State(cause.state).name}{example}"
        yield from _reasons(cause.reasons, names, "  ")
    if found.left_out:
        yield f"  and for {pluralize(found.left_out, 'other group', 'other groups')} of nodes"


def _data(found: broker_pb2.Explanation) -> dict[str, object]:
    return {
        "node": uuid_text(found.node), "function": found.function or None,
        "state": State(found.state).name if found.node else None, "since": found.since or None,
        "reasons": _reasons_data(found.reasons),
        "causes": [
            {
                "node": uuid_text(cause.node), "function": cause.function, "state": State(cause.state).name,
                "nodes": cause.nodes, "reasons": _reasons_data(cause.reasons),
            }
            for cause in found.causes
        ],
        "causes_left_out": found.left_out, "more": found.more,
        "schedule": found.schedule or None, "scheduled_for": found.scheduled_for or None,
    }  # fmt: skip


def _reasons_data(reasons: Iterable[broker_pb2.Reason]) -> list[dict[str, object]]:
    return [
        {
            "code": reason.code, "text": reason.text, "about": reason.about,
            "nodes": [uuid_text(id) for id in reason.node], "until": reason.until or None,
        }
        for reason in reasons
    ]  # fmt: skip
