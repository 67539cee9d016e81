"""Messages to records and back. Checks form, knows no rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import islice

from dagorama.api import broker_pb2 as pb
from dagorama_broker.errors import Malformed
from dagorama_broker.model import Failure, Function, RetryPolicy, World
from dagorama_broker.queues import Lane
from dagorama_broker.scheduler import NewRun, Presence, Scheduler
from dagorama_broker.scheduler.parts import Granted, Node

#: Bytes of envelopes after which a message is cut.
PIECE = 1 << 20
LONGEST_NAME = 4096
#: The flag, in an envelope's second byte, of one that ends with the SHA-256 of its content instead of holding it.
LARGE = 2


def id_bytes(id: bytes, what: str) -> bytes:
    """A 16-byte id as it came. Raises Malformed."""
    if len(id) != 16:
        raise Malformed(f"the id of {what} has {len(id)} bytes; 16 are expected")
    return id


# --- functions and nodes --------------------------------------------------------------------------


def function_of(message: pb.Function) -> Function:
    if not message.name or len(message.name) > LONGEST_NAME:
        raise Malformed(f"a function's name has {len(message.name)} characters; 1 to {LONGEST_NAME} are allowed")
    retry = None
    if message.HasField("retry"):
        if message.retry.max_attempts < 1:
            raise Malformed(f"{message.name}: a retry policy needs at least one attempt")
        pauses = message.retry.interval, message.retry.base, message.retry.max_interval, message.retry.jitter
        if not all(0.0 <= pause < float("inf") for pause in pauses):
            raise Malformed(f"{message.name}: a retry policy's pauses must be finite and not negative")
        retry = RetryPolicy(message.retry.max_attempts, *pauses)
    return Function(
        message.name, message.hash, message.queue or message.name, message.taint, retry, message.is_async, World.OURS
    )


def function_message(function: Function) -> pb.Function:
    message = pb.Function(
        name=function.name, hash=function.hash, queue=function.queue, taint=function.taint, is_async=function.is_async
    )
    if function.retry is not None:
        retry = function.retry
        message.retry.max_attempts = retry.max_attempts
        message.retry.interval, message.retry.base = retry.interval, retry.base
        message.retry.max_interval, message.retry.jitter = retry.max_interval, retry.jitter
    return message


def lanes_of(scheduler: Scheduler, functions: Iterable[pb.Function]) -> list[Lane]:
    return [scheduler.graph.lane(function_of(function)) for function in functions]


def run_of(nodes: pb.Nodes, lanes: Sequence[Lane], digest: bytes = b"") -> NewRun:
    """A `Nodes` message as a record. Raises Malformed where its columns do not fit together."""
    count = len(nodes.function)
    if len(nodes.arguments) != count or (nodes.source_count and len(nodes.source_count) != count):
        raise Malformed("the columns of a run of nodes have different lengths")
    if len(nodes.origin) != 12:
        raise Malformed(f"an origin has {len(nodes.origin)} bytes; 12 are expected")
    if nodes.first + count > 1 << 32:
        raise Malformed("the counters of a run of nodes go past 32 bits")
    if count and max(nodes.function) >= len(lanes):
        raise Malformed("a node names a function that the message does not have")
    creates = None
    if nodes.HasField("creates"):
        creates = (nodes.creates.definition, nodes.creates.entry and id_bytes(nodes.creates.entry, "the entry node"))
    foreign = [id_bytes(id, "a source") for id in nodes.foreign]
    sources = _split(nodes.source, nodes.source_count, len(foreign), nodes.first + count, "source")
    return NewRun(
        id_bytes(nodes.instance, "an instance"), nodes.origin, nodes.first, [lanes[i] for i in nodes.function],
        list(nodes.arguments), sources, foreign, creates, digest, _shas(nodes.large),
    )


def _split(
    references: Sequence[int], counts: Sequence[int], foreign: int, end: int, what: str
) -> list[Sequence[int]] | None:
    """One column of references and their counts as a sequence for each node."""
    if not counts and not references:
        return None
    if sum(counts) != len(references):
        raise Malformed(f"the {what} references do not add up to their counts")
    if references and (min(references) < -foreign or max(references) >= end):
        raise Malformed(f"a {what} reference names nothing that the message has")
    taken = iter(references)
    return [tuple(islice(taken, count)) for count in counts]


def _shas(large: Iterable[bytes]) -> list[bytes]:
    found = list(large)
    if any(len(sha256) != 32 for sha256 in found):
        raise Malformed("the name of a large value is not a SHA-256")
    return found


def digest_of(request: pb.SubmitRequest, nodes: pb.Nodes) -> bytes:
    """What tells one submission from another with the same ids."""
    content = blake2b(nodes.SerializeToString(deterministic=True), digest_size=16)
    for function in request.functions:
        content.update(function.SerializeToString(deterministic=True))
    return content.digest()


def runs_of(scheduler: Scheduler, requests: Iterable[pb.SubmitRequest]) -> list[NewRun]:
    runs = []
    for request in requests:
        lanes = lanes_of(scheduler, request.functions)
        runs += [run_of(nodes, lanes, digest_of(request, nodes)) for nodes in request.nodes]
    return runs


# --- workers --------------------------------------------------------------------------------------


def presence_of(hello: pb.Hello) -> Presence:
    if hello.protocol != 1:
        raise Malformed(f"this broker speaks protocol 1, the worker {hello.protocol}: update one of them")
    if not 1 <= hello.slots <= 4096:
        raise Malformed(f"a worker has 1 to 4096 slots, not {hello.slots}")
    if not len(hello.held_node) == len(hello.held_attempt) == len(hello.held_slot):
        raise Malformed("the columns of what the worker holds have different lengths")
    return Presence(
        id_bytes(hello.worker, "a worker"), hello.name[:LONGEST_NAME], hello.slots, World.OURS,
        frozenset(hello.include_queues), frozenset(hello.exclude_queues), frozenset(hello.tolerations),
        hello.until == pb.DRAINED, hello.until == pb.IDLE,
    )


def refs_of(results: pb.Results) -> list[Sequence[int]] | None:
    """References of each completed node. Raises Malformed where the columns do not fit together."""
    count = len(results.node)
    if not len(results.attempt) == len(results.value) == len(results.microseconds) == count:
        raise Malformed("the columns of a report have different lengths")
    if results.ref_count and len(results.ref_count) != count:
        raise Malformed("the columns of a report have different lengths")
    if len(results.large) != len(results.large_of) or any(place >= count for place in results.large_of):
        raise Malformed("a report's large values name nodes that it does not have")
    return _split(results.ref, results.ref_count, len(results.foreign), 1 << 32, "result")


def large_by_place(results: pb.Results) -> dict[int, list[bytes]]:
    large: dict[int, list[bytes]] = {}
    for place, sha256 in zip(results.large_of, _shas(results.large), strict=True):
        large.setdefault(place, []).append(sha256)
    return large


def failure_of(message: pb.Failure) -> Failure:
    return Failure("", message.type, message.message, message.traceback, message.exception, 0)


def failure_message(failure: Failure, id: bytes) -> pb.NodeFailure:
    return pb.NodeFailure(
        node=id, function=failure.function, type=failure.type, message=failure.message, traceback=failure.traceback,
        exception=failure.exception, attempts=failure.attempts,
    )


class GrantBuilder:
    """Grants for one slot, cut into pieces that fit a message."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.finished: list[pb.Grant] = []
        self._start()

    def _start(self) -> None:
        self._grant, self._body, self._size = pb.Grant(slot=self.slot), pb.GrantBody(), 0
        self._functions: dict[int, int] = {}
        self._instances: dict[bytes, int] = {}
        self._values: set[int] = set()

    def add(self, granted: Granted, arguments: bytes) -> None:
        """A node and its arguments; its values are to be added before it."""
        node, body, grant = granted.node, self._body, self._grant
        grant.node.append(node.key)
        grant.attempt.append(granted.attempt)
        body.node.append(node.key)
        body.attempt.append(granted.attempt)
        body.function.append(self._function(node.lane))
        body.instance.append(self._instance(node.instance.id))
        assert node.run is not None
        body.id.append(node.run.id_of(node.key))
        body.arguments.append(arguments)
        self._name_large(arguments)
        body.source_count.append(len(node.sources))
        if node.sources:
            body.source.extend([source.key for source in node.sources])
        body.run.append(node.trouble.runs if node.trouble is not None else 0)
        self._size += len(arguments) + 64
        if self._size >= PIECE:
            self.cut()

    def lacks(self, key: int) -> bool:
        return key not in self._values

    def add_values(self, nodes: Sequence[Node], values: Mapping[int, bytes]) -> None:
        """Values that a node which is added next needs; what is over the size of a piece is sent ahead."""
        for node in nodes:
            body, envelope = self._body, values[node.key]
            self._values.add(node.key)
            body.value_ref_count.append(len(node.refs))
            if node.refs:
                body.value_ref.extend([ref.key for ref in node.refs])
            body.value_node.append(node.key)
            body.value.append(envelope)
            self._name_large(envelope)
            self._size += len(envelope) + 8
            if self._size >= PIECE:
                self._send_ahead()

    def _name_large(self, envelope: bytes) -> None:
        """Let the supervisor fetch a large value before the child asks for it; see `values.py` for the two header bytes."""
        if len(envelope) > 1 and envelope[1] & LARGE:
            self._grant.large.append(envelope[-32:])

    def take(self) -> list[pb.Grant]:
        """The pieces that are finished."""
        finished, self.finished = self.finished, []
        return finished

    def _send_ahead(self) -> None:
        """Cut within a grant: the columns go on in the next piece, which the receiver joins."""
        self.finished.append(pb.Grant(slot=self.slot, body=self._body.SerializeToString()))
        self._body, self._size = pb.GrantBody(), 0

    def cut(self) -> None:
        """End the grant; what follows is another."""
        if self._grant.node:
            self._grant.body, self._grant.last = self._body.SerializeToString(), True
            self.finished.append(self._grant)
        self._start()

    def _function(self, lane: Lane) -> int:
        index = self._functions.get(lane.id)
        if index is None:
            index = self._functions[lane.id] = len(self._functions)
            self._body.functions.append(function_message(lane.function))
        return index

    def _instance(self, id: bytes) -> int:
        index = self._instances.get(id)
        if index is None:
            index = self._instances[id] = len(self._instances)
            self._body.instances.append(id)
        return index

