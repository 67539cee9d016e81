"""Commands that list instances and show their nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

from dagorama.api import broker_pb2
from dagorama.api.contract import is_hook
from dagorama.cli.base import LABELS, TARGET, Answer, named_command, node_name, node_names, node_reference, whole_ids
from dagorama.cli.node import node_answer
from dagorama.cli.output import cut_note
from dagorama.cli.parameters import filter_option
from dagorama.client.display.tables import (
    duration_text,
    key_values,
    pluralize,
    run_seconds,
    table,
    time_text,
    uuid_text,
)
from dagorama.models.state import State
from dagorama.values.json_shown import promised_nodes

if TYPE_CHECKING:
    from dagorama.client.connection import Connection

T = TypeVar("T")

#: Number of instances or nodes shown without --limit.
DEFAULT_LIMIT = 100
#: Seconds that a filter may name.
LONGEST_RUN = 1_000_000_000
_LIMIT = click.option(
    "--limit", type=click.IntRange(0), default=DEFAULT_LIMIT, show_default=True, help="Most rows to show; 0 shows all."
)


# --- instances ------------------------------------------------------------------------------------------


@click.command("list")
@click.option("--unfinished", is_flag=True, help="Only unfinished instances; with --failed, unfinished or failed ones.")
@click.option("--failed", is_flag=True, help="Only instances with a failed or cancelled node.")
@filter_option("--definition", help="Only instances of this definition, 'package.module:Class'.")
@filter_option("--id", "name", help="Only instances with this ID, which start() has given to them.")
@LABELS
@filter_option("--function", help="Only instances with a node of this function, 'module:Class.method'.")
@filter_option("--error", help="Only instances with a node whose error has this text in its type or message.")
@_LIMIT
@named_command
def list_(broker: Connection, limit: int, **asked: Any) -> Answer:
    """List instances, newest first."""
    listed, total = broker.list_instances(limit and limit + 1, **asked)
    found, is_cut = _cut(listed, limit)
    marks = [marks_text(info) for info in found]
    rows = [
        (
            f"{UUID(bytes=info.instance)}",
            summary_state(info),
            f"{info.unfinished}/{info.nodes}",
            time_text(info.created),
            time_text(info.ended_at),
            info.definition,
            *([mark] if any(marks) else []),
            info.stuck,
        )
        for info, mark in zip(found, marks, strict=True)
    ]
    with_marks = ["id and labels"] if any(marks) else []
    heads = ("instance", "state", "unfinished", "created", "ended", "definition", *with_marks, "reason")
    note = cut_note(limit, total or None, "instances") if is_cut else ""
    names = [f"{UUID(bytes=info.instance)}" for info in found]
    return Answer(table(heads, rows), [instance_data(info) for info in found], note, names)


def _cut(found: list[T], limit: int) -> tuple[list[T], bool]:
    """Return the first `limit` items (all if it is 0), and whether there are more."""
    return (found[:limit], True) if limit and len(found) > limit else (found, False)


def _run_time(text: str | float) -> float:
    """Return seconds. Raise BadParameter."""
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) <= LONGEST_RUN:
            return seconds
    raise click.BadParameter(f"{text!r} is not a number of seconds from 0 to {LONGEST_RUN:,}.")


@click.command()
@TARGET
@click.argument("node", type=node_reference, required=False)
@click.option(
    "--state", "states", multiple=True, type=click.Choice([state.name for state in State], case_sensitive=False),
    help="Only nodes in this state. May be repeated.",
)  # fmt: skip
@filter_option("--function", help="Only nodes of this function, 'module:Class.method'.")
@filter_option("--error", help="Only nodes whose own error has this text in its type or message.")
@filter_option("--worker", help="Only nodes that the worker with this name holds, or was the last to run.")
@click.option(
    "--slower-than", type=_run_time, default=0.0, metavar="SECONDS",
    help="Only nodes whose last attempt has taken at least this time.",
)  # fmt: skip
@click.option(
    "--retried", "failed_attempts", is_flag=True, flag_value=1, type=int, default=0,
    help="Only nodes with a failed attempt.",
)  # fmt: skip
@click.option(
    "--arguments", is_flag=True,
    help="Also show the arguments of NODE, and its value if it is JSON. Pickles need the signing key.",
)  # fmt: skip
@_LIMIT
@named_command
def show(
    broker: Connection, instance: str, node: str | None, states: Sequence[str], arguments: bool, limit: int, **of: Any
) -> Answer:
    """Show an instance and its nodes in the order of creation; with NODE, show everything stored about that node."""
    whole, given = whole_ids(broker, instance, [node] if node is not None else [])
    if len(given) > 1:
        raise click.UsageError("show takes one node; the first argument names one already")
    if given:
        return _node(broker, whole, given[0], arguments)
    if arguments:
        raise click.UsageError("--arguments needs a NODE; pass it after the instance")
    return _instance(broker, whole, [State[name] for name in states], limit, of)


def _node(broker: Connection, instance: bytes, id: bytes, arguments: bool) -> Answer:
    details = broker.get_node(instance, id, arguments=arguments, value=arguments)
    info = details.info
    near = [info.node, *info.sources, info.root_cause, info.creator, info.cached.node, *promised_nodes(details.value)]
    names = node_names(broker, near)
    return node_answer(broker, UUID(bytes=instance), details, node_data(info, instance), names)


def _instance(
    broker: Connection, instance: bytes, states: Sequence[State], limit: int, of: Mapping[str, Any]
) -> Answer:
    info = broker.get_instance(instance)
    nodes, is_cut = _cut(broker.list_nodes(instance, limit and limit + 1, states, **of), limit)
    causes = node_names(broker, {node.root_cause for node in nodes} - {b""})
    rows = [
        (
            node_name(instance, node.ordinal, node.node),
            state_name(node.state),
            f"{node.failed_attempts}",
            time_text(node.ended or node.retry_at),
            duration_text(node.microseconds),
            node.worker,
            node.function.name,
            reason_of(node, causes),
        )
        for node in nodes
    ]
    heads = ("node", "state", "failed attempts", "ended, or retry at", "ran for", "worker", "function", "reason")
    records = [node_data(node, instance) for node in nodes]
    note = _cut_note(broker, info, states, any(of.values()), limit) if is_cut else ""
    entry = node_names(broker, [info.entry]).get(info.entry, "-")
    text = f"{key_values(_instance_facts(info, entry))}\n\n{table(heads, rows)}"
    ids = [f"{UUID(bytes=node.node)}" for node in nodes]
    return Answer(text, {"instance": instance_data(info), "nodes": records}, note, ids, records)


def _cut_note(
    broker: Connection, info: broker_pb2.InstanceInfo, states: Sequence[State], is_filtered: bool, limit: int
) -> str:
    if is_filtered:
        return cut_note(limit, None, "such nodes")
    if not states:
        return cut_note(limit, info.nodes, "nodes")
    counts = broker.count_nodes(info.instance)
    # Nodes may have left these states since they were listed.
    return cut_note(limit, max(limit, sum(counts[state] for state in set(states))), "nodes in these states")


def _instance_facts(info: broker_pb2.InstanceInfo, entry: str) -> list[tuple[str, str]]:
    used = pluralize(info.used_failures, "node used one", "nodes used one") if info.used_failures else ""
    return [
        ("instance", f"{uuid_text(info.instance)}"), ("definition", info.definition),
        *([("id and labels", marks_text(info))] if marks_text(info) else []),
        *([("started by", f"the schedule {info.schedule!r}")] if info.schedule else []),
        *([("priority", f"{info.priority}")] if info.priority else []),
        *([("fair key", info.fair)] if info.fair else []), ("state", summary_state(info)),
        *([("reason", info.stuck)] if info.stuck else []),
        ("entry", entry), ("created", time_text(info.created)),
        ("ended", time_text(info.ended_at) or "-"), ("nodes", f"{info.nodes}, {info.unfinished} unfinished"),
        *([("old failures", used)] if used else []),
    ]  # fmt: skip


def marks_text(info: broker_pb2.InstanceInfo) -> str:
    """Return the user's ID of an instance and its labels in one line."""
    return " ".join([*([info.name] if info.name else []), *(f"{k}={v}" for k, v in sorted(info.labels.items()))])


def summary_state(info: broker_pb2.InstanceInfo) -> str:
    """Return the state of an instance in one to four words.

    An instance is stuck if no connected worker can run its queued nodes and none of its other nodes can proceed.
    """
    if info.stuck:
        return "stuck"
    if not info.ended:
        return "failing" if info.failed else "running"
    if info.used_failures and not info.failed:
        return "completed with old failures"
    if State(info.entry_state) is State.CANCELLED:
        return "cancelled"
    return "failed" if info.failed else "completed"


def state_name(number: int) -> str:
    """Return the name of a node's state."""
    return State(number).name


def reason_of(node: broker_pb2.NodeInfo, names: Mapping[bytes, str]) -> str:
    """Return the reason of a node's state, or why the node is outdated, or an empty text."""
    if node.from_aborted_attempt and not node.reason:
        return "created by an attempt that was rolled back or repeated"
    if node.used_failure and not node.reason:
        return "used a failure as a value that has been retried since; retry it with --downstream"
    return f"because of {names[node.root_cause]}: {node.reason}" if node.root_cause else node.reason


def instance_data(info: broker_pb2.InstanceInfo) -> dict[str, object]:
    """Return an instance as JSON data."""
    return {
        "instance": uuid_text(info.instance), "definition": info.definition, "ended": info.ended,
        "failed": info.failed, "entry": uuid_text(info.entry),
        "entry_state": state_name(info.entry_state) if info.entry else None, "created": info.created,
        "ended_at": info.ended_at or None, "nodes": info.nodes, "unfinished": info.unfinished,
        "stuck": info.stuck or None, "used_failures": info.used_failures, "id": info.name or None,
        "labels": dict(sorted(info.labels.items())), "priority": info.priority,
        "schedule": info.schedule or None, "fair": info.fair or None,
    }  # fmt: skip


def node_data(node: broker_pb2.NodeInfo, instance: bytes) -> dict[str, object]:
    """Return a node as JSON data."""
    return {
        "node": uuid_text(node.node),
        "name": node_name(instance, node.ordinal, node.node),
        "ordinal": node.ordinal or None,
        "state": state_name(node.state),
        **function_data(node.function),
        "sources": [uuid_text(source) for source in node.sources],
        "failed_attempts": node.failed_attempts,
        "crashes": node.crashes,
        "worker_losses": node.worker_losses,
        "worker": node.worker or None,
        "created_at": node.created,
        "created_by": uuid_text(node.creator),
        "started_at": node.started or None,
        "ended_at": node.ended or None,
        "run_seconds": run_seconds(node.microseconds),
        "retry_at": node.retry_at or None,
        "delay": node.delay or None,
        "not_before": node.not_before or None,
        "root_cause": uuid_text(node.root_cause),
        "reason": node.reason or None,
        "report": node.report.message if node.HasField("report") else None,
        "report_fraction": node.report.fraction if node.report.HasField("fraction") else None,
        "from_aborted_attempt": node.from_aborted_attempt,
        "used_failure": node.used_failure,
        "cached": uuid_text(node.cached.node),
        "signal": signal_data(node.signal),
        "failure_hook": is_hook(instance, node.node),
    }


def signal_data(signal: broker_pb2.SignalInfo) -> dict[str, object] | None:
    """Return the signal that a node waits for, or has waited for, as JSON data; None if there is none."""
    if not signal.name:
        return None
    end = broker_pb2.SignalEnd.Name(signal.end).removeprefix("SIGNAL_").lower()
    return {"name": signal.name, "state": end, "until": signal.until or None, "by": signal.by or None}


def function_data(function: broker_pb2.Function) -> dict[str, object]:
    """Return a function as JSON data."""
    return {
        "function": function.name, "hash": function.hash, "queue": function.queue, "taint": function.taint or None,
    }  # fmt: skip
