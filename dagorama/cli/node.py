"""All that is kept of one node, for `dagorama show INSTANCE NODE`.

The rule: arguments are unpickled only after their signature has been checked with a key that is held here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from reprlib import Repr
from typing import TYPE_CHECKING
from uuid import UUID

from dagorama.api import broker_pb2
from dagorama.cli.base import Answer
from dagorama.cli.tables import facts, time_text, uuid_text
from dagorama.errors import DagoramaError, SettingsError

if TYPE_CHECKING:
    from dagorama.client.connection import Connection

#: Characters of each argument that are shown.
LONGEST_ARGUMENT = 1_000


def node_answer(
    broker: Connection, instance: UUID, details: broker_pb2.NodeDetails, state: str, data: Mapping[str, object]
) -> Answer:
    """`state` and `data` are what a list of nodes shows of it."""
    info = details.info
    blocks = [facts(_facts(instance, details, state))]
    arguments = _arguments(broker, instance, details) if details.arguments else None
    if arguments is not None:
        blocks.append("arguments:\n" + "\n".join(f"  {line}" for line in arguments))
    blocks += _failed_runs(details)
    return Answer("\n\n".join(blocks), {
        **data, "instance": f"{instance}", "made_with": details.made_with.partition(" ")[0] or None,
        "attempts": _attempts(details),
        "failure_of": uuid_text(details.failure.node) if details.HasField("failure") else None,
        "argument_bytes": details.argument_bytes, "value_bytes": details.value_bytes if info.ended else None,
        "arguments": arguments,
    })  # fmt: skip


def _facts(instance: UUID, details: broker_pb2.NodeDetails, state: str) -> list[tuple[str, str]]:
    info, function = details.info, details.info.function
    rows = [
        ("node", f"{UUID(bytes=info.node)}"), ("instance", f"{instance}"), ("state", state),
        ("function", function.name), ("hash", function.hash or "of the code that is deployed when it runs"),
        ("made with", details.made_with.partition(" ")[0]), ("queue", function.queue), ("taint", function.taint),
        ("failed runs", f"{info.runs}"), ("deaths", f"{info.deaths}" if info.deaths else ""),
        ("lost", f"{info.lost}" if info.lost else ""), ("worker", info.worker), ("ended", time_text(info.ended)),
        ("runs again", time_text(info.retry_at)), ("culprit", uuid_text(info.culprit) or ""), ("reason", info.reason),
        ("arguments", f"{details.argument_bytes} bytes"),
        ("value", f"{details.value_bytes} bytes" if details.value_bytes else ""),
        ("sources", "\n".join(str(UUID(bytes=source)) for source in info.sources)),
        ("old failure", "it has used a failure as a value that has been retried since" if info.used_failure else ""),
        ("dead attempt", "it was made by a run that failed or was repeated" if info.dead_attempt else ""),
    ]  # fmt: skip
    return [(name, line) for name, text in rows if text for line in text.split("\n")]


# --- what went wrong --------------------------------------------------------------------------------------


def _attempts(details: broker_pb2.NodeDetails) -> list[dict[str, object]]:
    """Failed runs, oldest first. The broker keeps no times of the earlier ones."""
    if not details.HasField("failure"):
        return []
    last = details.failure
    runs: list[dict[str, object]] = [
        {"type": run.type, "message": run.message, "traceback": run.traceback, "ended_at": None} for run in last.earlier
    ]
    ended = details.info.ended or None
    runs.append({"type": last.type, "message": last.message, "traceback": last.traceback, "ended_at": ended})
    return runs


def _failed_runs(details: broker_pb2.NodeDetails) -> Iterator[str]:
    """A block for each failed run that is kept, with its traceback."""
    runs, culprit = _attempts(details), details.info.culprit
    of = f" of {details.failure.function}, node {UUID(bytes=culprit)}" if culprit else ""
    for number, run in enumerate(runs, 1):
        what = "last failed run" if number == len(runs) else f"failed run {number} of {len(runs)} that are kept"
        reason = ": ".join(f"{part}" for part in (run["type"], run["message"]) if part)
        yield "\n".join(filter(None, [f"{what}{of}: {reason}", f"{run['traceback']}".rstrip()]))


# --- arguments --------------------------------------------------------------------------------------------


class _Promised:
    """Stands for the value of a source, which is not fetched."""

    def __init__(self, id: bytes) -> None:
        self._id = id

    def __repr__(self) -> str:
        return f"<value of node {UUID(bytes=self._id)}>"


def _arguments(broker: Connection, instance: UUID, details: broker_pb2.NodeDetails) -> list[str]:
    """A line for each argument; or one that says why they cannot be shown."""
    try:
        args, kwargs = _opened(broker, instance, details)
    except SettingsError:
        raise
    except DagoramaError as error:
        return [f"they cannot be shown here: {error}"]
    return [*map(_shown, args), *(f"{name}={_shown(value)}" for name, value in kwargs.items())]


def _opened(
    broker: Connection, instance: UUID, details: broker_pb2.NodeDetails
) -> tuple[Sequence[object], Mapping[str, object]]:
    """Raises what Keyring.open does, and ValueNotReadable."""
    from dagorama.client.large_values import BrokerValues
    from dagorama.values.codec import decode_call
    from dagorama.values.envelope import references
    from dagorama.values.signing import code_text, function_digest, keyring

    function = details.info.function
    digest = function_digest(function.name, details.made_with or code_text(function.hash, function.class_code))
    envelope = keyring().open_arguments(details.arguments, instance.bytes, details.info.node, digest)
    fill = [_Promised(id) for id in references(envelope)]
    return decode_call(envelope, fill, get_large=BrokerValues(broker).get)


def _shown(value: object) -> str:
    """A bounded repr, whatever the object's own does."""
    bounded = Repr()
    bounded.maxstring = bounded.maxother = bounded.maxlong = LONGEST_ARGUMENT
    bounded.maxlist = bounded.maxtuple = bounded.maxdict = bounded.maxset = bounded.maxfrozenset = 20
    try:
        text = bounded.repr(value)
    except Exception as error:
        return f"<{type(value).__qualname__}, whose repr() raises {type(error).__name__}>"
    return text if len(text) <= LONGEST_ARGUMENT else f"{text[:LONGEST_ARGUMENT]} ..."
