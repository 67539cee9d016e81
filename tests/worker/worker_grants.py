"""Grants as a broker sends them, of functions in `worker_nodes`."""

import os
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.serializer import find
from dagorama.values import Encoded, encode, encode_call

numbers = count(1)


class Wanted(NamedTuple):
    """One node to be granted; `sources` are keys, in the order of the promises among the arguments."""

    method: str
    args: Sequence[Any] = ()
    sources: Sequence[int] = ()
    definition: str = "worker_nodes:Nodes"
    hash: str | None = None  #: None: that of the code here
    arguments: bytes | None = None  #: an envelope, in place of `args`

    @property
    def function(self) -> pb.Function:
        name = f"{self.definition}.{self.method}"
        if self.hash is not None:
            return pb.Function(name=name, hash=self.hash, queue="q")
        decorated = find(name).decorated
        is_async, eager = decorated.is_async, decorated.options.eager
        return pb.Function(name=name, hash=decorated.hash, queue="q", is_async=is_async, eager=eager)


def call(method: str, *args: Any) -> Wanted:
    return Wanted(method, args)


def body_of(
    wanted: Sequence[Wanted],
    values: Mapping[int, Encoded] | None = None,
    refs: Mapping[int, Sequence[int]] | None = None,
) -> pb.GrantBody:
    """Nodes and attempts get the next numbers; both are the same."""
    names = [next(numbers) for _ in wanted]
    values, refs = values or {}, refs or {}
    return pb.GrantBody(
        node=names,
        attempt=names,
        functions=[each.function for each in wanted],
        function=range(len(wanted)),
        id=[os.urandom(16) for _ in wanted],
        instances=[b"an instance's id"],
        instance=[0] * len(wanted),
        arguments=[each.arguments or encode_call(tuple(each.args), {}).envelope for each in wanted],
        source_count=[len(each.sources) for each in wanted] if any(each.sources for each in wanted) else [],
        source=[key for each in wanted for key in each.sources],
        value_node=values,
        value=[value.envelope for value in values.values()],
        value_ref_count=[len(refs.get(key, ())) for key in values] if refs else [],
        value_ref=[other for key in values for other in refs.get(key, ())],
    )


def grant_of(*wanted: Wanted, slot: int = 0, large: Sequence[bytes] = ()) -> pb.Grant:
    body = body_of(wanted)
    return pb.Grant(
        slot=slot, node=body.node, attempt=body.attempt, body=body.SerializeToString(), last=True, large=large
    )


def encoded(value: object) -> Encoded:
    return encode(value, "result")
