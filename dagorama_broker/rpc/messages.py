"""Messages to records and back. Checks form, knows no rules."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate, islice

from dagorama.api import broker_pb2 as pb
from dagorama_broker.errors import Malformed
from dagorama_broker.model import Failure, Function, RetryPolicy, World
from dagorama_broker.scheduler import NewRun, Presence, Scheduler
from dagorama_broker.scheduler.queues import HIGHEST, LOWEST, Lane

#: Bytes of envelopes after which a message is cut.
PIECE = 1 << 20
LONGEST_NAME = 4096
LONGEST_KEY_ID = 64
#: Queues and taints that one worker may name, and their characters together.
MOST_NAMES, LONGEST_NAMES = 500, 16 << 10
#: Characters of the hashes of a class: about a thousand methods.
LONGEST_CLASS_CODE = 64 << 10
#: Functions whose records are kept by their messages, and bytes of these messages.
FUNCTIONS_KEPT, BYTES_KEPT = 1024, 2 << 20
#: What is kept of a failure. A worker sends less; the broker holds to it whoever sends.
LONGEST_MESSAGE = 64 << 10
LARGEST_EXCEPTION = 1 << 20
#: Flags in an envelope's second byte: it holds the SHA-256 of its content instead; it ends with a table of parts.
LARGE, PARTS = 2, 8
#: What an entry of that table takes, in which a SHA-256 stands after a length, and the number of entries behind it.
PART_BYTES, COUNT_BYTES = 41, 4


def id_bytes(id: bytes, what: str) -> bytes:
    """A 16-byte id as it came. Raises Malformed."""
    if len(id) != 16:
        raise Malformed(f"the id of {what} has {len(id)} bytes; 16 are expected")
    return id


# --- functions and nodes --------------------------------------------------------------------------


def sha256_bytes(name: bytes) -> bytes:
    """The name of a large value as it came. Raises Malformed."""
    if len(name) != 32:
        raise Malformed(f"the name of a large value has {len(name)} bytes; a SHA-256 has 32")
    return name


def bounded(text: str, most: int) -> str:
    """A text with its middle left out where it is too long."""
    if len(text) <= most:
        return text
    left_out = f" ... {len(text) - most} characters are left out ... "
    return text[: most // 2] + left_out + text[-(most // 2) :]


def check_name(name: str, what: str, least: int = 0) -> str:
    """A name as it came. Raises Malformed where it is too long, or missing."""
    if not least <= len(name) <= LONGEST_NAME:
        raise Malformed(f"{what} has {len(name)} characters; {least} to {LONGEST_NAME} are allowed")
    return name


def check_names(names: Sequence[str]) -> None:
    """Raises Malformed where a worker's queues and tolerations are too many or too long."""
    if len(names) > MOST_NAMES or sum(map(len, names)) > LONGEST_NAMES:
        raise Malformed(
            f"a worker names {len(names)} queues and taints of {sum(map(len, names)):,} characters together;"
            f" {MOST_NAMES:,} of {LONGEST_NAMES:,} characters are allowed"
        )
    for name in names:
        check_name(name, "the name of a queue or taint")


def check_key_id(id: bytes, whose: str) -> None:
    """Raises Malformed where it is too long for the id of a signing key."""
    if len(id) > LONGEST_KEY_ID:
        raise Malformed(f"{whose}: the id of a signing key has at most {LONGEST_KEY_ID} bytes")


def function_of(message: pb.Function) -> Function:
    """The record of a function as it came: the same object for the same message. Raises Malformed."""
    data = message.SerializeToString()
    found = _functions.get(data)
    if found is None:
        found = _checked_function(message)
        _keep_function(data, found)
    return found


def _keep_function(data: bytes, function: Function) -> None:
    global _functions_size
    _functions_size += len(data)
    if len(_functions) >= FUNCTIONS_KEPT or _functions_size > BYTES_KEPT:
        _functions.clear()
        _functions_size = len(data)
    _functions[data] = function


# Clients send their functions with each message, and reading one takes as long as all the rest of a small message.
_functions: dict[bytes, Function] = {}
_functions_size = 0  # bytes of these messages


def _checked_function(message: pb.Function) -> Function:
    check_name(message.name, "the name of a function", least=1)
    check_name(message.hash, "the hash of a function")
    check_name(message.queue, "the name of a queue")
    check_name(message.taint, "the name of a taint")
    check_key_id(message.key_id, message.name)
    if len(message.class_code) > LONGEST_CLASS_CODE:
        raise Malformed(f"{message.name}: the code of its class has more than {LONGEST_CLASS_CODE:,} characters")
    retry = None
    if message.HasField("retry"):
        if message.retry.max_attempts < 1:
            raise Malformed(f"{message.name}: a retry policy needs at least one attempt")
        pauses = message.retry.interval, message.retry.base, message.retry.max_interval, message.retry.jitter
        if not all(0.0 <= pause < float("inf") for pause in pauses):
            raise Malformed(f"{message.name}: a retry policy's pauses must be finite and not negative")
        retry = RetryPolicy(message.retry.max_attempts, *pauses)
    for what, seconds in (
        ("timeout", message.timeout), ("queue_timeout", message.queue_timeout), ("delay", message.delay)
    ):
        if not 0.0 <= seconds < float("inf"):
            raise Malformed(f"{message.name}: its {what} must be finite and not negative")
    if not LOWEST <= message.priority <= HIGHEST:
        raise Malformed(f"{message.name}: a priority is from {LOWEST} to {HIGHEST}, not {message.priority}")
    return Function(
        message.name, message.hash, message.queue or message.name, message.taint, retry, message.is_async, World.OURS,
        message.timeout, message.queue_timeout, message.priority, message.max_concurrency, message.delay,
        message.max_deaths, message.eager, message.timeout_is_final, message.key_id.hex(),
        message.class_code,
    )


def function_message(function: Function) -> pb.Function:
    message = pb.Function(
        name=function.name, hash=function.hash, queue=function.queue, taint=function.taint, is_async=function.is_async,
        timeout=function.timeout, queue_timeout=function.queue_timeout, priority=function.priority,
        max_concurrency=function.max_concurrency, delay=function.delay, max_deaths=function.max_deaths,
        eager=function.eager, timeout_is_final=function.timeout_is_final, key_id=bytes.fromhex(function.key_id),
        class_code=function.class_code,
    )
    if function.retry is not None:
        retry = function.retry
        message.retry.max_attempts = retry.max_attempts
        message.retry.interval, message.retry.base = retry.interval, retry.base
        message.retry.max_interval, message.retry.jitter = retry.max_interval, retry.jitter
    return message


def lanes_of(scheduler: Scheduler, functions: Iterable[pb.Function]) -> list[Lane]:
    # All are read before the first is taken in: a message that is refused leaves none behind.
    return [scheduler.graph.lane(function) for function in list(map(function_of, functions))]


def check_run(nodes: pb.Nodes, functions: int) -> None:
    """Raises Malformed where the columns of a run do not fit together; `functions` is how many the message has."""
    count = len(nodes.function)
    if len(nodes.arguments) != count or (nodes.source_count and len(nodes.source_count) != count):
        raise Malformed("the columns of a run of nodes have different lengths")
    if len(nodes.origin) != 12:
        raise Malformed(f"an origin has {len(nodes.origin)} bytes; 12 are expected")
    if nodes.first + count > 1 << 32:
        raise Malformed("the counters of a run of nodes go past 32 bits")
    if count and max(nodes.function) >= functions:
        raise Malformed("a node names a function that the message does not have")
    id_bytes(nodes.instance, "an instance")
    if nodes.creates.entry:
        id_bytes(nodes.creates.entry, "the entry node")
    check_name(nodes.creates.definition, "the name of a definition")
    for id in nodes.foreign:
        id_bytes(id, "a source")
    _check_references(nodes.source, nodes.source_count, len(nodes.foreign), nodes.first + count, "source")
    if nodes.key and (len(nodes.key) != count or max(nodes.key) > len(nodes.keys)):
        raise Malformed("the concurrency keys of a run of nodes do not fit its nodes")
    for key in nodes.keys:
        check_name(key, "a concurrency key", least=1)
    if nodes.tolerant and max(nodes.tolerant) >= len(nodes.source):
        raise Malformed("a run of nodes tolerates the failure of a source that it does not name")
    for sha256 in nodes.large:
        sha256_bytes(sha256)


def _run_of(scheduler: Scheduler, nodes: pb.Nodes, lanes: Sequence[Lane], digest: bytes) -> NewRun:
    """A `Nodes` message, checked, as a record."""
    creates = (nodes.creates.definition, nodes.creates.entry) if nodes.HasField("creates") else None
    return NewRun(
        nodes.instance, nodes.origin, nodes.first, _lanes(scheduler, nodes, lanes), list(nodes.arguments),
        _split(nodes.source, nodes.source_count), list(nodes.foreign), creates, digest, list(nodes.large),
        _tolerant(nodes), _weight(nodes),
    )


def _lanes(scheduler: Scheduler, nodes: pb.Nodes, lanes: Sequence[Lane]) -> list[Lane]:
    """The lane of each node: that of its function, or of its concurrency key."""
    found = [lanes[i] for i in nodes.function]
    for place, key in enumerate(nodes.key):
        if key:
            found[place] = scheduler.graph.lane_of(found[place], nodes.keys[key - 1])
    return found


def _tolerant(nodes: pb.Nodes) -> list[list[int]] | None:
    """For each node the places, among its own sources, of those whose failure it takes."""
    if not nodes.tolerant:
        return None
    starts = list(accumulate(nodes.source_count, initial=0))
    found: list[list[int]] = [[] for _ in nodes.source_count]
    for place in nodes.tolerant:
        node = bisect_right(starts, place) - 1
        found[node].append(place - starts[node])
    return found


def _check_references(
    references: Sequence[int], counts: Sequence[int], foreign: int, end: int, what: str
) -> None:
    if sum(counts) != len(references):
        raise Malformed(f"the {what} references do not add up to their counts")
    if references and (min(references) < -foreign or max(references) >= end):
        raise Malformed(f"a {what} reference names nothing that the message has")


def _split(references: Sequence[int], counts: Sequence[int]) -> list[Sequence[int]] | None:
    """One column of references and their counts as a sequence for each node; None: no node has any."""
    if not references:
        return None
    taken = iter(references)
    return [tuple(islice(taken, count)) for count in counts]


def read_runs(scheduler: Scheduler, requests: Sequence[pb.SubmitRequest]) -> Iterator[NewRun | None]:
    """Read all runs of a submission, and yield None while they are checked: a step is one function or one run.

    All is checked before the first function is taken in: what is refused leaves none behind. Raises Malformed.
    """
    records: list[Function] = []
    for request in requests:
        for function in request.functions:
            records.append(function_of(function))
            yield None
        for nodes in request.nodes:
            check_run(nodes, len(request.functions))
            yield None
    rest = iter(records)
    for request in requests:
        lanes, functions = list[Lane](), blake2b(digest_size=16)
        for function, record in zip(request.functions, rest, strict=False):  # the message's own, of all
            lanes.append(scheduler.graph.lane(record))
            functions.update(function.SerializeToString(deterministic=True))
            yield None
        for nodes in request.nodes:
            yield _run_of(scheduler, nodes, lanes, _digest_of(functions, nodes))


def _digest_of(functions: blake2b, nodes: pb.Nodes) -> bytes:
    """What tells one submission from another with the same ids; `functions` has taken in those of the message."""
    content = functions.copy()
    content.update(nodes.SerializeToString(deterministic=True))
    return content.digest()


def runs_of(scheduler: Scheduler, requests: Sequence[pb.SubmitRequest]) -> list[NewRun]:
    """All runs of a submission, read at once. Raises Malformed."""
    return [run for run in read_runs(scheduler, requests) if run is not None]


def weight_of(request: pb.SubmitRequest) -> int:
    """Functions, nodes, references and runs of a message: roughly what it costs to make them."""
    return len(request.functions) + sum(map(_weight, request.nodes))


def _weight(nodes: pb.Nodes) -> int:
    return 1 + len(nodes.function) + len(nodes.source) + len(nodes.foreign)


def run_of(scheduler: Scheduler, nodes: pb.Nodes, lanes: Sequence[Lane]) -> NewRun:
    """Children of an attempt. Raises Malformed."""
    check_run(nodes, len(lanes))
    return _run_of(scheduler, nodes, lanes, b"")


# --- workers --------------------------------------------------------------------------------------


def presence_of(hello: pb.Hello) -> Presence:
    if hello.protocol != 1:
        raise Malformed(f"this broker speaks protocol 1, the worker {hello.protocol}: update one of them")
    if not 1 <= hello.slots <= 4096:
        raise Malformed(f"a worker has 1 to 4096 slots, not {hello.slots}")
    if not len(hello.held_node) == len(hello.held_attempt) == len(hello.held_slot):
        raise Malformed("the columns of what the worker holds have different lengths")
    check_names((*hello.include_queues, *hello.exclude_queues, *hello.tolerations))
    if len(hello.key_ids) > MOST_NAMES:
        raise Malformed(f"a worker names {len(hello.key_ids)} signing keys; {MOST_NAMES:,} are allowed")
    for id in hello.key_ids:
        check_key_id(id, "a worker")
    return Presence(
        id_bytes(hello.worker, "a worker"), bounded(hello.name, LONGEST_NAME), hello.slots, World.OURS,
        frozenset(hello.include_queues), frozenset(hello.exclude_queues), frozenset(hello.tolerations),
        hello.until == pb.DRAINED, hello.until == pb.IDLE, frozenset(id.hex() for id in hello.key_ids),
        is_proven=bool(hello.secret),
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
    for id in results.foreign:
        id_bytes(id, "a promised node")
    _check_references(results.ref, results.ref_count, len(results.foreign), 1 << 32, "result")
    return _split(results.ref, results.ref_count)


def large_by_place(results: pb.Results) -> dict[int, list[bytes]]:
    large: dict[int, list[bytes]] = {}
    for place, sha256 in zip(results.large_of, map(sha256_bytes, results.large), strict=True):
        large.setdefault(place, []).append(sha256)
    return large


def failure_of(message: pb.Failure, longest_traceback: int) -> Failure:
    """A failure as it is kept: bounded, whoever sent it."""
    exception = message.exception if len(message.exception) <= LARGEST_EXCEPTION else b""
    return Failure(
        "", bounded(message.type, LONGEST_NAME), bounded(message.message, LONGEST_MESSAGE),
        bounded(message.traceback, longest_traceback), exception, 0,
    )


def failure_message(failure: Failure, id: bytes) -> pb.NodeFailure:
    return pb.NodeFailure(
        node=id, function=failure.function, type=failure.type, message=failure.message, traceback=failure.traceback,
        exception=failure.exception, attempts=failure.attempts,
        earlier=[
            pb.EarlierFailure(type=type, message=message, traceback=traceback)
            for type, message, traceback in failure.earlier
        ],
    )


def large_in(envelope: bytes) -> list[bytes]:
    """Return the SHA-256 of each large part that an envelope names; docs/reference/envelopes.md has the layout.

    A malformed envelope names none.
    """
    names: list[bytes] = []
    end = len(envelope)
    if envelope[1] & PARTS:
        end -= COUNT_BYTES
        start = end - PART_BYTES * int.from_bytes(envelope[end : end + COUNT_BYTES], "little")
        if not 2 <= start < end:
            return names
        names += [envelope[at + 8 : at + 40] for at in range(start, end, PART_BYTES)]
        end = start
    if envelope[1] & LARGE and end > 33:
        names.append(envelope[end - 32 : end])
    return names
