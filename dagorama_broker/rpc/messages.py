"""Reads nodes to be made from messages. Checks form, knows no rules, and changes nothing."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate, islice

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import FIRST_HOOK
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.model.delays import NodeDelay
from dagorama_broker.model.domain import Function
from dagorama_broker.rpc.fields import (
    check_cache_keys,
    check_delays,
    check_name,
    check_references,
    check_trace,
    id_bytes,
    sha256_bytes,
)
from dagorama_broker.rpc.functions import function_of
from dagorama_broker.rpc.marks import start_of
from dagorama_broker.rpc.signals import check_waits, waits_of
from dagorama_broker.scheduler import AnnouncedKey, NewNodes

UNNAMED = "a node names a function that the message does not have"


def blocks_of(requests: Sequence[pb.SubmitRequest]) -> list[NewNodes]:
    """Return all blocks of a submission. Raises InvalidArgument."""
    return [block for block in read_blocks(requests) if block is not None]


def read_blocks(requests: Sequence[pb.SubmitRequest]) -> Iterator[NewNodes | None]:
    """Yield all blocks of a submission, and None for each function: a step reads one. Raises InvalidArgument."""
    for request in requests:
        functions, content = list[Function](), blake2b(digest_size=16)
        for function in request.functions:
            functions.append(function_of(function))
            content.update(function.SerializeToString(deterministic=True))
            yield None
        for nodes in request.nodes:
            check_run(nodes, len(functions))
            yield _run_of(nodes, functions, _digest_of(content, nodes))


def block_of(nodes: pb.Nodes, functions: Sequence[Function]) -> NewNodes:
    """Return the children of an attempt. Raises InvalidArgument."""
    check_run(nodes, len(functions))
    return _run_of(nodes, functions, b"")


def functions_named(nodes: pb.Nodes, messages: Sequence[pb.Function]) -> list[Function]:
    """Return the functions that a block names, and have it number them so. Raises InvalidArgument.

    A function that is refused is a fault of the blocks that name it, and of no others in the same message.
    """
    named = sorted(set(nodes.function))
    if named and named[-1] >= len(messages):
        raise InvalidArgument(UNNAMED)
    nodes.function[:] = [bisect_left(named, index) for index in nodes.function]
    return [function_of(messages[index]) for index in named]


def weight_of(request: pb.SubmitRequest) -> int:
    """Return the number of functions, nodes, references and runs of a message: roughly what making them costs."""
    return len(request.functions) + sum(map(_weight, request.nodes))


def _weight(nodes: pb.Nodes) -> int:
    # A node whose cache key is known may complete in the same step.
    return 1 + len(nodes.function) + len(nodes.source) + len(nodes.foreign) + len(nodes.cached)


def check_run(nodes: pb.Nodes, functions: int) -> None:
    """Raise InvalidArgument if the columns of a block do not fit together; `functions` is how many the message has."""
    count = len(nodes.function)
    if len(nodes.arguments) != count or (nodes.source_count and len(nodes.source_count) != count):
        raise InvalidArgument("the columns of a block of nodes have different lengths")
    if len(nodes.origin) != 12:
        raise InvalidArgument(f"an origin has {len(nodes.origin)} bytes; 12 are expected")
    if nodes.first + count > FIRST_HOOK:
        raise InvalidArgument(f"the counters of a block of nodes go past {FIRST_HOOK:,}, the first of failure hooks")
    if count and max(nodes.function) >= functions:
        raise InvalidArgument(UNNAMED)
    id_bytes(nodes.instance, "an instance")
    if nodes.creates.entry:
        id_bytes(nodes.creates.entry, "the entry node")
    check_name(nodes.creates.definition, "the name of a definition")
    for id in nodes.foreign:
        id_bytes(id, "a source")
    check_references(nodes.source, nodes.source_count, len(nodes.foreign), nodes.first + count, "source")
    if nodes.key and (len(nodes.key) != count or max(nodes.key) > len(nodes.keys)):
        raise InvalidArgument("the concurrency keys of a block of nodes do not fit its nodes")
    for key in nodes.keys:
        check_name(key, "a concurrency key", least=1)
    if nodes.tolerant and max(nodes.tolerant) >= len(nodes.source):
        raise InvalidArgument("a block of nodes tolerates the failure of a source that it does not name")
    for sha256 in nodes.large:
        sha256_bytes(sha256)
    if nodes.delayed or nodes.delay or nodes.not_before:
        check_delays(nodes)
    if nodes.waits:
        check_waits(nodes)
    if nodes.cached or nodes.cache_key or nodes.cache_announcement:
        check_cache_keys(nodes)
    if nodes.trace:
        check_trace(nodes.trace)


def _run_of(nodes: pb.Nodes, functions: Sequence[Function], digest: bytes) -> NewNodes:
    """Return a `Nodes` message, which was checked, as a record."""
    creates = (nodes.creates.definition, nodes.creates.entry) if nodes.HasField("creates") else None
    return NewNodes(
        nodes.instance,
        nodes.origin,
        nodes.first,
        functions,
        list(nodes.function),
        list(nodes.arguments),
        split(nodes.source, nodes.source_count),
        list(nodes.foreign),
        creates,
        digest,
        list(nodes.large),
        _tolerant(nodes),
        list(nodes.keys),
        list(nodes.key),
        _weight(nodes),
        nodes.trace,
        start_of(nodes.creates) if creates is not None else None,
        _delays(nodes) if nodes.delayed else None,
        waits_of(nodes) if nodes.waits else None,
        _cache_keys(nodes) if nodes.cached else None,
    )


def _delays(nodes: pb.Nodes) -> dict[int, NodeDelay]:
    """Return the delays of the nodes that have one, by their places."""
    columns = zip(nodes.delayed, nodes.delay, nodes.not_before, strict=True)
    return {place: NodeDelay(seconds, until) for place, seconds, until in columns}


def _cache_keys(nodes: pb.Nodes) -> dict[int, AnnouncedKey]:
    """Return the cache keys of the nodes whose caller knows them, by their places."""
    columns = zip(nodes.cached, nodes.cache_key, nodes.cache_announcement, strict=True)
    return {place: AnnouncedKey(key, signature) for place, key, signature in columns}


def _digest_of(functions: blake2b, nodes: pb.Nodes) -> bytes:
    """Return a hash of a block and its functions, which tells it from another block with the same IDs."""
    content = functions.copy()
    content.update(nodes.SerializeToString(deterministic=True))
    return content.digest()


def _tolerant(nodes: pb.Nodes) -> list[list[int]] | None:
    """Return for each node the indexes of its own sources whose failure it takes as a value."""
    if not nodes.tolerant:
        return None
    starts = list(accumulate(nodes.source_count, initial=0))
    found: list[list[int]] = [[] for _ in nodes.source_count]
    for place in nodes.tolerant:
        node = bisect_right(starts, place) - 1
        found[node].append(place - starts[node])
    return found


def split(references: Sequence[int], counts: Sequence[int]) -> list[Sequence[int]] | None:
    """Return a column of references as one sequence for each node, by their counts; None: there are no references."""
    if not references:
        return None
    taken = iter(references)
    return [tuple(islice(taken, count)) for count in counts]
