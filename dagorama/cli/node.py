"""Show everything that is stored about one node, for `dagorama show INSTANCE NODE`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from dagorama.api import broker_pb2
from dagorama.api.contract import is_hook
from dagorama.cli.base import Answer
from dagorama.cli.values import argument_lines, value_lines
from dagorama.client.display.tables import duration_text, key_values, report_text, run_seconds, time_text, uuid_text
from dagorama.errors import FailedAttempt

if TYPE_CHECKING:
    from dagorama.client.connection import Connection


def node_answer(
    broker: Connection,
    instance: UUID,
    details: broker_pb2.NodeDetails,
    data: Mapping[str, object],
    names: Mapping[bytes, str],
) -> Answer:
    """Return the details of a node; `data` is its JSON data in a list of nodes, and `names` are of all nodes in it."""
    info = details.info
    blocks = [key_values(_facts(instance, details, f"{data['state']}", names))]
    arguments = argument_lines(broker, instance, details, names) if details.arguments else None
    value = value_lines(details, names) if details.value else []
    blocks += [
        f"{name}:\n" + "\n".join(f"  {line}" for line in lines)
        for name, lines in (("arguments", arguments), ("value", value or None))
        if lines is not None
    ]
    blocks += _failure_blocks(details, names)
    return Answer("\n\n".join(blocks), {
        **data, "instance": f"{instance}", "made_with": details.made_with.partition(" ")[0] or None,
        "attempts": _attempts(details),
        "failure_of": uuid_text(details.failure.node) if details.HasField("failure") else None,
        "ready_at": details.ready_at or None,
        "argument_bytes": details.argument_bytes, "value_bytes": details.value_bytes if info.ended else None,
        "arguments": arguments, "value": value or None,
    }, names=[f"{UUID(bytes=info.node)}"])  # fmt: skip


def _facts(
    instance: UUID, details: broker_pb2.NodeDetails, state: str, names: Mapping[bytes, str]
) -> list[tuple[str, str]]:
    info, function = details.info, details.info.function
    rows = [
        ("node", names[info.node]),
        ("id", f"{UUID(bytes=info.node)}"),
        ("instance", f"{instance}"),
        ("state", state),
        ("function", function.name),
        ("called as", "the failure hook of its instance" if is_hook(instance.bytes, info.node) else ""),
        ("hash", "" if info.signal.name else function.hash or "of the code deployed when it runs"),
        ("created with", details.made_with.partition(" ")[0]),
        ("queue", function.queue),
        ("taint", function.taint),
        ("failed attempts", f"{info.failed_attempts}"),
        ("crashes", f"{info.crashes}" if info.crashes else ""),
        ("worker losses", f"{info.worker_losses}" if info.worker_losses else ""),
        ("created", time_text(info.created)),
        ("created by", f"node {names[info.creator]}" if info.creator else ""),
        ("ready", time_text(details.ready_at)),
        ("started", time_text(info.started)),
        ("ended", time_text(info.ended)),
        ("ran for", duration_text(info.microseconds)),
        ("worker", info.worker),
        ("reports", _report(info.report) if info.HasField("report") else ""),
        ("retry at", time_text(info.retry_at)),
        ("delay", f"{info.delay:g} s after it is ready" if info.delay else ""),
        ("not before", time_text(info.not_before)),
        ("root cause", names[info.root_cause] if info.root_cause else ""),
        ("reason", info.reason),
        *signal_facts(info.signal),
        ("arguments", f"{details.argument_bytes} bytes"),
        ("value", _value(details, names)),
        ("sources", "\n".join(names[source] for source in info.sources)),
        ("old failure", "used a failure as a value that has been retried since" if info.used_failure else ""),
        (
            "aborted attempt",
            "created by an attempt that was rolled back or repeated" if info.from_aborted_attempt else "",
        ),
    ]
    return [(name, line) for name, text in rows if text for line in text.split("\n")]


def _value(details: broker_pb2.NodeDetails, names: Mapping[bytes, str]) -> str:
    if details.info.HasField("cached"):
        return f"value of node {names[details.info.cached.node]}, cached"
    return f"{details.value_bytes} bytes" if details.value_bytes else ""


def signal_facts(signal: broker_pb2.SignalInfo) -> list[tuple[str, str]]:
    """Return the facts about the signal that a node waits for, or has waited for."""
    if not signal.name:
        return []
    ends = {
        broker_pb2.SIGNAL_SENT: f"sent by {signal.by}" if signal.by else "sent",
        broker_pb2.SIGNAL_TIMED_OUT: "not sent in time",
        broker_pb2.SIGNAL_DEFAULT: "not sent in time; the node took its default",
        broker_pb2.SIGNAL_CANCELLED: "the wait was cancelled",
    }
    after = "then it takes its default" if signal.has_default else "then it fails"
    until = f"{time_text(signal.until)}; {after}" if signal.until and signal.end not in ends else ""
    return [("signal", signal.name), ("signal was", ends.get(signal.end, "")), ("waits until", until)]


def _report(report: broker_pb2.NodeReport) -> str:
    return report_text(report.message, report.fraction if report.HasField("fraction") else None)


# --- failed attempts --------------------------------------------------------------------------------------


def _attempts(details: broker_pb2.NodeDetails) -> list[dict[str, object]]:
    """Return the failed attempts, oldest first."""
    if not details.HasField("failure"):
        return []
    last = details.failure
    every: list[broker_pb2.EarlierFailure | broker_pb2.NodeFailure] = [*last.earlier, last]
    return [
        {
            "type": each.type, "message": each.message, "traceback": each.traceback, "ended_at": each.ended or None,
            "run_seconds": run_seconds(each.microseconds), "worker": each.worker or None,
        }
        for each in every
    ]  # fmt: skip


def _failure_blocks(details: broker_pb2.NodeDetails, names: Mapping[bytes, str]) -> Iterator[str]:
    """Yield a text with the traceback for each failed attempt that is stored."""
    attempts, root_cause = _attempts(details), details.info.root_cause
    of = f" of {details.failure.function}, node {names[root_cause]}" if root_cause else ""
    for number, attempt in enumerate(attempts, 1):
        is_last = number == len(attempts)
        which = "last failed attempt" if is_last else f"stored failed attempt {number} of {len(attempts)}"
        reason = ": ".join(f"{part}" for part in (attempt["type"], attempt["message"]) if part)
        where = f", on {attempt['worker']}" if attempt["worker"] else ""
        more = f"{attempt['traceback']}".rstrip() or FailedAttempt(f"{attempt['type']}", "", "").address
        yield "\n".join(filter(None, [f"{which}{of}{where}: {reason}", more]))
