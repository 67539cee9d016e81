"""Signals on the wire: nodes that wait for one, a signal that someone sends, and how a node has waited."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256
from re import fullmatch
from typing import Any, NoReturn

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import (
    LATEST_START,
    LONGEST_SCHEMA,
    LONGEST_SIGNAL,
    LONGEST_SIGNAL_KEY,
    LONGEST_WAIT,
    SIGNAL_NAME,
    WAIT_FUNCTION,
)
from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.model.queries import StoredNode
from dagorama_broker.model.signal_types import misfit
from dagorama_broker.model.signals import NewSignal, WaitRow
from dagorama_broker.rpc.fields import check_places, check_text, id_bytes
from dagorama_broker.rpc.permissions import caller_name
from dagorama_broker.scheduler import FunctionQueue, Sent, refuse_ended

#: Arrays and objects within each other that a signal has at most: programs that read it need some stack for each.
MOST_NESTED = 100


def check_signal_name(name: str) -> str:
    """Return the name of a signal as it came. Raises InvalidArgument."""
    if not fullmatch(SIGNAL_NAME, name):
        raise InvalidArgument(
            f'the name of a signal is {name[:200]!r}: it has 1 to 100 letters, digits, "_", "." and "-"'
        )
    return name


# --- nodes that wait ----------------------------------------------------------------------------------------


def check_waits(nodes: pb.Nodes) -> None:
    """Raise InvalidArgument if the waits of a block of nodes do not fit its nodes, or are too large."""
    check_places([wait.node for wait in nodes.waits], nodes, "waits")
    for wait in nodes.waits:
        check_signal_name(wait.name)
        if not 0.0 <= wait.timeout <= LATEST_START:
            raise InvalidArgument(f"the timeout of a wait is {wait.timeout}: it must be from 0 to {LATEST_START:.0f} s")
        if len(wait.schema) > LONGEST_SCHEMA:
            raise InvalidArgument(f"the schema of the signal {wait.name!r} has more than {LONGEST_SCHEMA:,} bytes")
        if len(nodes.arguments[wait.node]) > LONGEST_WAIT:
            raise InvalidArgument(f"the wait for the signal {wait.name!r} has more than {LONGEST_WAIT:,} bytes")
        if nodes.source_count and nodes.source_count[wait.node]:
            raise InvalidArgument(f"the node that waits for the signal {wait.name!r} has sources")


def waits_of(nodes: pb.Nodes) -> dict[int, WaitRow]:
    """Return the waits of nodes, which were checked, by their places; the scheduler adds keys and times."""
    return {
        wait.node: WaitRow(
            0, 0, wait.name, wait.timeout, 0.0, int(wait.has_default), wait.schema, nodes.arguments[wait.node]
        )
        for wait in nodes.waits
    }


def is_wait(queue: FunctionQueue) -> bool:
    """Return whether nodes of this function wait for signals."""
    return queue.function.name.startswith(WAIT_FUNCTION)


async def stored_waits(broker: Broker, nodes: Collection[StoredNode]) -> dict[int, WaitRow]:
    """Return how these nodes wait, or waited, as the store has it, by key."""
    queues = broker.scheduler.function_queues
    keys = [node.key for node in nodes if is_wait(queues[node.function])]
    return await broker.commits.in_view(broker.store.view.waits, keys) if keys else {}


def signal_message(wait: WaitRow) -> pb.SignalInfo:
    """Return how a node waits, or has waited, as a message."""
    return pb.SignalInfo(
        name=wait.name,
        timeout=wait.timeout,
        until=wait.until,
        has_default=bool(wait.has_default),
        schema=wait.schema,
        end=pb.SignalEnd.ValueType(wait.end),
        by=wait.by,
    )


# --- a signal -----------------------------------------------------------------------------------------------


async def send_signal(broker: Broker, request: pb.SendSignalRequest) -> pb.SendSignalReply:
    """Send a signal; return when it is durable. Raises what `_send` raises, and InvalidArgument for bad fields."""
    instance, name = id_bytes(request.instance, "an instance"), check_signal_name(request.name)
    if len(request.key) > LONGEST_SIGNAL_KEY:
        raise InvalidArgument(f"the key of a signal has more than {LONGEST_SIGNAL_KEY} characters")
    check_text(request.key, "the key of a signal")
    data = read_json(request.value, name)
    if is_nested_deeply(data):
        raise InvalidArgument(f"the signal {name!r} has more than {MOST_NESTED} arrays and objects within each other")
    digest = sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).digest()
    sent = await _send(broker, instance, NewSignal(name, request.value, digest, request.key, caller_name()), data)
    node = sent.node
    id = node.block.id_of(node.key) if node is not None and node.block is not None else b""
    return pb.SendSignalReply(known=sent.is_known, node=id, kept=sent.kept)


async def _send(broker: Broker, instance: bytes, signal: NewSignal, data: object) -> Sent:
    """Send a signal, whose JSON data are `data`; return when it is durable.

    Raises NotFound, InvalidArgument if the value plainly is not what the node waits for, Conflict if another one with
    the same key was sent, FailedPrecondition if no node waits for it any longer, or ResourceExhausted.
    """
    with broker.lookups.holds.on(instance):
        while (found := broker.scheduler.instance(instance)) is None:
            stored = await broker.lookups.stored_instance(instance)
            if stored.ended is not None and broker.scheduler.instance(instance) is None:
                return refuse_ended(stored.mail, signal, stored.ended)
        broker.see_time()
        wait = broker.scheduler.next_wait(found, signal.name)
        if wait is not None and (why := misfit(wait.schema, data)):
            raise InvalidArgument(f"the signal {wait.name!r} does not fit the type that its node waits for: it {why}")
        sent = broker.scheduler.send_signal(found, signal)
        await broker.commits.wait_durable()
        return sent


def read_json(value: bytes, name: str) -> object:
    """Return the JSON data of a signal. Raises InvalidArgument if it is none, or too large."""
    if len(value) > LONGEST_SIGNAL:
        raise InvalidArgument(
            f"the signal {name!r} has {len(value):,} bytes; {LONGEST_SIGNAL:,} are allowed: send a name or an address"
            " of what is larger"
        )
    try:
        return json.loads(value.decode(), parse_constant=_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the signal {name!r} is not JSON ({type(error).__name__}: {error})") from None


def is_nested_deeply(data: object) -> bool:
    """Return whether more than MOST_NESTED arrays and objects of JSON data are within each other."""
    level = [data] if type(data) in (list, dict) else []
    for _ in range(MOST_NESTED):
        level = [part for each in level for part in _parts(each) if type(part) in (list, dict)]
    return bool(level)


def _parts(data: object) -> Iterable[object]:
    if isinstance(data, dict):
        return data.values()
    return data if isinstance(data, list) else ()


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found
