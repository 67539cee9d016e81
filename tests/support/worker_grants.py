"""Grants as a broker sends them, of functions in `worker_nodes`, signed as their makers do; and what came of them."""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.serializer import find
from dagorama.values.codec import Encoded, decode, encode, encode_call
from dagorama.values.envelope import references
from dagorama.values.signing import ARGUMENTS, RESULT, code_text, function_digest, keyring

INSTANCE = b"an instance's id"

numbers = count(1)
#: of the nodes granted so far, by attempt
ids: dict[int, bytes] = {}


class Wanted(NamedTuple):
    """One node to be granted; `sources` are keys, in the order of the promises among the arguments."""

    method: str
    args: Sequence[Any] = ()
    sources: Sequence[int] = ()
    definition: str = "tests.support.worker_nodes:Nodes"
    hash: str | None = None  #: None: the hash of the code here
    arguments: bytes | None = None  #: an unsigned envelope, in place of `args`
    id: bytes | None = None  #: None: a new one

    @property
    def function(self) -> pb.Function:
        name = f"{self.definition}.{self.method}"
        if self.hash is not None:
            return pb.Function(name=name, hash=self.hash, queue="q")
        found = find(name)
        function = found.decorated.spec(found.cls).to_message(b"")
        function.queue = "q"
        function.ClearField("retry")
        return function

    def signed(self, id: bytes) -> bytes:
        function = function_digest(self.function.name, code_text(self.function.hash, self.function.class_code))
        return keyring().sign(self._envelope, ARGUMENTS, INSTANCE, id, function)

    @property
    def named(self) -> dict[int, bytes]:
        """IDs of the sources, by key."""
        return dict(zip(self.sources, references(self._envelope), strict=True))

    @property
    def _envelope(self) -> bytes:
        return self.arguments or encode_call(tuple(self.args), {}).envelope


def call(method: str, *args: Any) -> Wanted:
    return Wanted(method, args)


def body_of(
    wanted: Sequence[Wanted],
    values: Mapping[int, Encoded] | None = None,
    refs: Mapping[int, Sequence[int]] | None = None,
) -> pb.GrantBody:
    """Nodes and attempts get the next numbers; both are the same."""
    names = [next(numbers) for _ in wanted]
    ids.update((name, each.id or os.urandom(16)) for name, each in zip(names, wanted, strict=True))
    values, refs = values or {}, refs or {}
    named = _named(wanted, values, refs)
    return pb.GrantBody(
        node=names,
        attempt=names,
        functions=[each.function for each in wanted],
        function=range(len(wanted)),
        id=[ids[name] for name in names],
        instances=[INSTANCE],
        instance=[0] * len(wanted),
        arguments=[each.signed(ids[name]) for name, each in zip(names, wanted, strict=True)],
        source_count=[len(each.sources) for each in wanted] if any(each.sources for each in wanted) else [],
        source=[key for each in wanted for key in each.sources],
        value_node=values,
        value=[keyring().sign(value.envelope, RESULT, INSTANCE, named[key]) for key, value in values.items()],
        value_id=[named[key] for key in values],
        value_ref_count=[len(refs.get(key, ())) for key in values] if refs else [],
        value_ref=[other for key in values for other in refs.get(key, ())],
    )


def _named(
    wanted: Sequence[Wanted], values: Mapping[int, Encoded], refs: Mapping[int, Sequence[int]]
) -> dict[int, bytes]:
    """IDs of all nodes that arguments and values name, by key."""
    named = {key: id for each in wanted for key, id in each.named.items()}
    for key, others in refs.items():
        named.update(zip(others, references(values[key].envelope), strict=True))
    return named


def grant_of(*wanted: Wanted, slot: int = 0, large: Sequence[bytes] = ()) -> pb.Grant:
    body = body_of(wanted)
    return pb.Grant(
        slot=slot, node=body.node, attempt=body.attempt, body=body.SerializeToString(), last=True, large=large
    )


def encoded(value: object) -> Encoded:
    return encode(value, "result")


def opened(attempt: int, envelope: bytes) -> bytes:
    """The value of a node granted here, as its reader opens it."""
    return keyring().open(envelope, RESULT, ids[attempt]).envelope


def values_of(results: pb.Results, get_large: Callable[[bytes], bytes] | None = None) -> list[Any]:
    """Return the values of nodes that were granted here."""
    pairs = zip(results.attempt, results.value, strict=True)
    return [decode(opened(attempt, envelope), get_large=get_large) for attempt, envelope in pairs]
