"""Show everything that is stored about one node, for `dagorama show INSTANCE NODE`.

The rule: arguments are unpickled only after their signature was verified with a local key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from reprlib import Repr
from typing import TYPE_CHECKING
from uuid import UUID

from dagorama.api import broker_pb2
from dagorama.cli.base import Answer
from dagorama.client.display.tables import duration_text, key_values, report_text, run_seconds, time_text, uuid_text
from dagorama.errors import DagoramaError, FailedAttempt, SettingsError

if TYPE_CHECKING:
    from dagorama.client.connection import Connection

#: The text of each argument is truncated to this many characters, and each container in it to MAX_ITEMS items.
MAX_ARGUMENT_CHARACTERS = 1_000
MAX_ITEMS = 20


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
    arguments = _arguments(broker, instance, details, names) if details.arguments else None
    if arguments is not None:
        blocks.append("arguments:\n" + "\n".join(f"  {line}" for line in arguments))
    blocks += _failure_blocks(details, names)
    return Answer("\n\n".join(blocks), {
        **data, "instance": f"{instance}", "made_with": details.made_with.partition(" ")[0] or None,
        "attempts": _attempts(details),
        "failure_of": uuid_text(details.failure.node) if details.HasField("failure") else None,
        "ready_at": details.ready_at or None,
        "argument_bytes": details.argument_bytes, "value_bytes": details.value_bytes if info.ended else None,
        "arguments": arguments,
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
        ("hash", function.hash or "of the code deployed when it runs"),
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
        ("arguments", f"{details.argument_bytes} bytes"),
        ("value", f"{details.value_bytes} bytes" if details.value_bytes else ""),
        ("sources", "\n".join(names[source] for source in info.sources)),
        ("old failure", "used a failure as a value that has been retried since" if info.used_failure else ""),
        (
            "aborted attempt",
            "created by an attempt that was rolled back or repeated" if info.from_aborted_attempt else "",
        ),
    ]
    return [(name, line) for name, text in rows if text for line in text.split("\n")]


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


# --- arguments --------------------------------------------------------------------------------------------


class _Promised:
    """Placeholder for the value of a source, which is not fetched."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<value of node {self._name}>"


def _arguments(
    broker: Connection, instance: UUID, details: broker_pb2.NodeDetails, names: Mapping[bytes, str]
) -> list[str]:
    """Return a line for each argument, or one line that says why the arguments cannot be shown."""
    try:
        args, kwargs = _opened(broker, instance, details, names)
    except SettingsError:
        raise
    except DagoramaError as error:
        return [f"cannot be shown: {error}"]
    return [*map(_shown, args), *(f"{name}={_shown(value)}" for name, value in kwargs.items())]


def _opened(
    broker: Connection, instance: UUID, details: broker_pb2.NodeDetails, names: Mapping[bytes, str]
) -> tuple[Sequence[object], Mapping[str, object]]:
    """Verify and unpickle the arguments. Raises the errors of Keyring.open_arguments, and ValueNotReadable."""
    from dagorama.client.large_values import BrokerValues
    from dagorama.values.codec import decode_call
    from dagorama.values.envelope import references
    from dagorama.values.signing import code_text, function_digest, keyring

    function = details.info.function
    digest = function_digest(function.name, details.made_with or code_text(function.hash, function.class_code))
    envelope = keyring().open_arguments(details.arguments, instance.bytes, details.info.node, digest)
    fill = [_Promised(names.get(id, f"{UUID(bytes=id)}")) for id in references(envelope)]
    return decode_call(envelope, fill, get_large=BrokerValues(broker).get)


def _shown(value: object) -> str:
    """Return the repr of a value, truncated, or a note if its repr() raises an exception."""
    bounded = Repr()
    bounded.maxstring = bounded.maxother = bounded.maxlong = MAX_ARGUMENT_CHARACTERS
    bounded.maxlist = bounded.maxtuple = bounded.maxdict = bounded.maxset = bounded.maxfrozenset = MAX_ITEMS
    try:
        text = bounded.repr(value)
    except Exception as error:
        return f"<{type(value).__qualname__}, repr() raised {type(error).__name__}>"
    return text if len(text) <= MAX_ARGUMENT_CHARACTERS else f"{text[:MAX_ARGUMENT_CHARACTERS]} ..."
