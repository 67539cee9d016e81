"""Binds nodes to other code on request, and reads signed rebindings, without checking signatures.

The broker holds no key: it does what a rebinding says, stores it, and sends it to workers, which check it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain

from google.protobuf.message import DecodeError

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import MESSAGE_TARGET
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.retries import Asked, ended_waits, look
from dagorama_broker.errors import InvalidArgument, ResourceExhausted
from dagorama_broker.model.actions import ActionKind, ActionRow
from dagorama_broker.model.domain import Rebinding
from dagorama_broker.rpc.explain import MOST_NAMED, bounded_message
from dagorama_broker.rpc.fields import LONGEST_NAME, check_key_id, check_name, id_bytes
from dagorama_broker.rpc.functions import LONGEST_CLASS_CODE
from dagorama_broker.rpc.permissions import caller_name
from dagorama_broker.scheduler import DEPLOYED, Node, Obstacle, Rebindable, ReboundFunction

VERSION = 1
#: Hashes of code that one request may name.
MOST_HASHES = 10_000
LONGEST_MAC = 64
#: Bytes of one signed rebinding, which goes with each grant of a node that it is for.
LARGEST = 256 << 10
#: Bytes of code that one rebinding may name, and that all of one retry may: they go well into a message.
MOST_SIGNED, MOST_LISTED = LARGEST - (32 << 10), MESSAGE_TARGET


async def rebind(broker: Broker, request: pb.RebindRequest) -> pb.RebindReply:
    """Bind unfinished nodes of a function to other code; with `look` only return which, and their code.

    Raises InvalidArgument, NotFound or FailedPrecondition, and then nothing has changed.
    """
    made_with = request.from_hash
    if len(made_with) > MOST_HASHES:
        raise InvalidArgument(f"{len(made_with)} hashes of code are named; {MOST_HASHES:,} are allowed")
    asked = ReboundFunction(
        check_name(request.function, "the name of a function", least=1),
        check_name(request.hash, "the hash of a function"), frozenset(made_with),
        id_bytes(request.instance, "an instance") if request.instance else b"",
    )  # fmt: skip
    rebinding = rebinding_of(request.rebinding) if request.HasField("rebinding") else None
    broker.see_time()
    if request.look:
        found = broker.scheduler.rebindable(asked)
        refuse_too_much(found.made_with, MOST_SIGNED)
        return _reply(found)
    found = broker.scheduler.rebind(asked, rebinding)
    if found.nodes:
        action = ActionRow(ActionKind.REBIND, caller_name(), asked.instance, asked.name, len(found.nodes))
        broker.scheduler.record_action(action)
    reply = _reply(found)
    reply.unschedulable.extend(_unservable(broker, found.nodes))
    await broker.commits.wait_durable()
    return reply


def _reply(found: Rebindable) -> pb.RebindReply:
    return pb.RebindReply(rebound=len(found.nodes), hash=found.hash, made_with=sorted(found.made_with))


def _unservable(broker: Broker, nodes: Iterable[Node]) -> list[pb.Unschedulable]:
    """Return the functions of these nodes, up to a bound, that no connected worker may run, and why."""
    scheduler = broker.scheduler
    counts = Counter(node.queue.id for node in nodes)
    queues = [scheduler.function_queues[id] for id in counts][:MOST_NAMED]
    return [
        bounded_message(scheduler, Obstacle(queue, counts[queue.id], reason))
        for queue, reason in scheduler.unschedulable(queues)
    ]


# --- what was signed --------------------------------------------------------------------------------


def rebinding_of(message: pb.SignedRebinding) -> Rebinding:
    """Return what a signed rebinding says. Raises InvalidArgument."""
    signed = message.SerializeToString()
    if len(signed) > LARGEST:
        raise InvalidArgument(
            f"a signed rebinding has {len(signed):,} bytes and at most {LARGEST:,} are allowed: name less code in it"
        )
    check_key_id(message.key_id, "a signed rebinding")
    if not message.key_id or not 0 < len(message.mac) <= LONGEST_MAC:
        raise InvalidArgument("a rebinding is not signed")
    try:
        said = pb.Rebinding.FromString(message.rebinding)
    except DecodeError:
        raise InvalidArgument("a signed rebinding cannot be read") from None
    return _checked(said, message.key_id.hex(), signed)


def _checked(said: pb.Rebinding, key_id: str, signed: bytes) -> Rebinding:
    if said.version != VERSION:
        raise InvalidArgument(
            f"a rebinding is of version {said.version}, this broker knows {VERSION}: update one of them"
        )
    check_name(said.function, "the name of a rebound function", least=1)
    check_name(said.hash, "the hash of the code of a rebinding")
    if bool(said.hash) == said.deployed:
        raise InvalidArgument("a rebinding is for code with one hash, or for the code that is deployed")
    if not said.made_with or any(not 0 < len(code) <= LONGEST_NAME + LONGEST_CLASS_CODE for code in said.made_with):
        raise InvalidArgument("a rebinding names the code that its nodes were made with, and none that is too long")
    instance = id_bytes(said.instance, "the instance of a rebinding") if said.instance else b""
    hash = DEPLOYED if said.deployed else said.hash
    return Rebinding(said.function, frozenset(said.made_with), hash, instance, key_id, signed)


def for_deployed(messages: Iterable[pb.SignedRebinding]) -> list[Rebinding]:
    """Return the rebindings that come with a retry. Raises InvalidArgument."""
    found = [rebinding_of(message) for message in messages]
    if any(rebinding.hash != DEPLOYED for rebinding in found):
        raise InvalidArgument("a retry with new code takes rebindings for the code that is deployed")
    return found


async def look_at_retry(broker: Broker, asked: Asked) -> pb.RetryReply:
    """Return what a caller must say to retry these nodes with new code, or to let them wait again. Change nothing."""
    rebindable = _rebindable_messages(await look(broker, asked)) if asked.new_code else []
    waits = await ended_waits(broker, asked.instance, asked.ids) if asked.downstream else {}
    ended = [pb.EndedWait(node=id, attempt=node.attempt) for id, node in waits.items()]
    return pb.RetryReply(rebindable=rebindable, waits=ended)


def _rebindable_messages(made_with: Mapping[str, set[str]]) -> list[pb.Rebindable]:
    """Return code to rebind to, by functions. Raises ResourceExhausted if it is too much for one signature."""
    for codes in made_with.values():
        refuse_too_much(codes, MOST_SIGNED)
    refuse_too_much(chain.from_iterable(made_with.values()), MOST_LISTED)
    return [pb.Rebindable(function=name, made_with=sorted(codes)) for name, codes in sorted(made_with.items())]


def refuse_too_much(codes: Iterable[str], most: int) -> None:
    """Raise ResourceExhausted if this is more code than one signature covers."""
    size = sum(len(code.encode()) for code in codes)
    if size > most:
        raise ResourceExhausted(
            f"the code of these nodes has {size:,} bytes of hashes, and {most:,} are signed in one go: "
            "rebind fewer at a time (`dagorama rebind --from-hash`, `dagorama retry INSTANCE NODE`)"
        )
