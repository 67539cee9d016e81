"""Nodes as columns: the calls of one node or client, until they are submitted in one or several messages.

The rule: a batch holds what its messages contain and nothing else; no message is larger than the limit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

from dagorama.api import broker_pb2
from dagorama.api.contract import MESSAGE_LIMIT, MESSAGE_TARGET, NAMES_LARGE, ORIGIN_BYTES
from dagorama.errors import NotInInstance, RequestRejected
from dagorama.graph.cache_keys import CACHE_KEY_WEIGHT, Announced, CacheKeys, add_cache_keys
from dagorama.graph.delays import DELAY_BYTES, Delay, add_delays
from dagorama.graph.waits import Wait, add_waits
from dagorama.values.cached_values import ANNOUNCEMENT, sign_cache_key
from dagorama.values.codec import Encoded
from dagorama.values.envelope import SIGNATURE_BYTES, large_values
from dagorama.values.signing import ARGUMENTS, Keyring, code_text, function_digest, keyring

if TYPE_CHECKING:
    from dagorama.graph.options import KeyOf, Options
    from dagorama.values.json_calls import JsonFunction

#: Bytes of nodes that fit into one unary call.
UNARY_LIMIT = 2 * 1024 * 1024
#: The largest number of bytes of a batch in addition to its nodes, in a message of many batches.
RUN_BYTES = 64
#: Bytes of one node, which cannot be split.
NODE_LIMIT = MESSAGE_LIMIT - 64 * 1024
#: The largest number of bytes of a node in addition to its envelope, of a source, and of a source of the same origin.
NODE_BYTES, SOURCE_BYTES, OWN_SOURCE_BYTES = 24, 24, 5
#: Bytes of tolerating the failure of a source, and of a character of a key.
TOLERANT_BYTES, KEY_BYTES = 4, 4


@dataclass(frozen=True, slots=True, eq=False)
class FunctionSpec:
    """The function of a node and its options: one object for each decorated function and definition class."""

    name: str  #: "module:Class.method", followed by "@module:Base" for a super() call
    hash: str
    class_code: str  #: hashes of all decorated methods of the class; if empty, the worker uses its own
    queue: str
    options: Options
    key_of: KeyOf | None  #: computes the key of a call, by which it is counted; None if there is none
    is_async: bool
    function: Callable[..., Any]  #: the undecorated function
    python_name: str  #: its `__name__` when its hash was computed
    json: JsonFunction | None = None  #: its JSON types; None if its arguments and result are pickled
    digest: bytes = field(init=False)  #: the part of the signature of arguments that binds them to this function
    cache_keys: CacheKeys | None = field(init=False)  #: computes the cache keys of its calls; None: it has no cache

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", function_digest(self.name, code_text(self.hash, self.class_code)))
        cache, code = self.options.cache, (self.name, self.hash, self.class_code)
        keys = None if cache is None else CacheKeys(cache, cast(FunctionType, self.function), *code)
        object.__setattr__(self, "cache_keys", keys)

    def to_message(self, key_id: bytes) -> broker_pb2.Function:
        """Return the message of the function; `key_id` is the key that signs the arguments of its nodes."""
        options = self.options
        return options.with_limits(broker_pb2.Function(
            name=self.name, hash=self.hash, queue=self.queue, taint=options.taint_name or "",
            retry=options.retry.as_policy() if options.retry is not None else None, is_async=self.is_async,
            timeout=options.timeout or 0, queue_timeout=options.queue_timeout or 0, priority=options.priority,
            max_concurrency=options.max_concurrency or 0, delay=options.delay, max_deaths=options.max_deaths or 0,
            stream_children=options.stream_children, timeout_is_final=options.timeout_is_final, key_id=key_id,
            class_code=self.class_code, cached=options.cache is not None,
            cache_ttl=(options.cache and options.cache.ttl) or 0,
        ))  # fmt: skip


class FunctionTable:
    """The functions of one message; its nodes refer to them by index."""

    __slots__ = ("_index", "functions")

    def __init__(self) -> None:
        self._index: dict[tuple[FunctionSpec, bytes], int] = {}
        self.functions: list[broker_pb2.Function] = []

    def indices(self, specs: Sequence[FunctionSpec], key_id: bytes) -> list[int]:
        """Return the index of each function; add the new ones. `key_id` is the key that signs the arguments."""
        for spec in dict.fromkeys(specs):
            if (spec, key_id) not in self._index:
                self._index[spec, key_id] = len(self.functions)
                self.functions.append(spec.to_message(key_id))
        return [self._index[spec, key_id] for spec in specs]


class NodeBatch:
    """Nodes of one instance that one node or client creates, in order, as columns. Any thread may add nodes.

    A node gets its ID here, and its arguments are signed here.
    """

    __slots__ = (
        "_arguments", "_cache_keys", "_closed", "_keys", "_lock", "_refs", "_ring", "_specs", "_tolerant", "_weights",
        "creates", "delays", "first", "instance", "origin", "trace", "waits",
    )  # fmt: skip

    def __init__(self, instance: bytes, origin: bytes, first: int = 0, ring: Keyring | None = None) -> None:
        self.instance = instance
        self.origin = origin
        self.first = first
        self.creates: broker_pb2.NewInstance | None = None
        self.trace = ""  #: the trace context of what creates the nodes; empty: they are not traced
        self._ring = ring or keyring()
        self._specs: list[FunctionSpec] = []
        self._arguments: list[bytes] = []
        self._refs: list[Sequence[bytes]] = []
        self._weights: list[int] = []  # the most bytes of each node in a message
        # By position, because few nodes have any.
        self._tolerant: dict[int, Sequence[int]] = {}
        self._keys: dict[int, str] = {}
        self.delays: dict[int, Delay] = {}  #: of nodes that have one, by position
        self.waits: dict[int, Wait] = {}  #: of nodes that wait for a signal, by position
        self._cache_keys: dict[int, Announced] = {}
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Refuse all later nodes, so that the messages made from now on are complete."""
        with self._lock:
            self._closed = True

    def __len__(self) -> int:
        """Return the number of nodes that are in all columns."""
        with self._lock:
            return len(self._specs)

    def function_of(self, position: int) -> FunctionSpec:
        """Return the function of the node at this position."""
        return self._specs[position]

    def add(
        self,
        spec: FunctionSpec,
        encoded: Encoded,
        key: str | None = None,
        delay: Delay | None = None,
        wait: Wait | None = None,
        cache_key: bytes | None = None,
    ) -> int:
        """Add a node with the key by which it is counted and a delay, or one that waits; return its counter.

        Raises RequestRejected for a node that is too large for a message.
        """
        weight = len(encoded.envelope) + SIGNATURE_BYTES + NODE_BYTES
        if encoded.refs:
            weight += SOURCE_BYTES * len(encoded.refs) + TOLERANT_BYTES * len(encoded.tolerant)
        if weight > NODE_LIMIT and weight - self._spared(encoded.refs) > NODE_LIMIT:
            raise RequestRejected(
                f"a call of {spec.name} names {len(encoded.refs):,} promises, more than one message holds; "
                "reduce them in groups",
                "INVALID_ARGUMENT",
            )
        with self._lock:
            if self._closed:
                raise NotInInstance(f"{spec.name} was called while its node ended; call it before the node returns")
            position = len(self._specs)
            node = self.origin + (self.first + position).to_bytes(4, "big")
            self._arguments.append(self._ring.sign(encoded.envelope, ARGUMENTS, self.instance, node, spec.digest))
            self._specs.append(spec)
            self._refs.append(encoded.refs)
            if encoded.tolerant:
                self._tolerant[position] = encoded.tolerant
            if key is not None:
                self._keys[position] = key
                weight += KEY_BYTES * len(key)
            if delay is not None:
                self.delays[position] = delay
                weight += DELAY_BYTES
            if wait is not None:
                self.waits[position] = wait
                weight += wait.weight
            if cache_key is not None:
                weight += CACHE_KEY_WEIGHT
                signature = sign_cache_key(self._ring, ANNOUNCEMENT, cache_key, self.instance, node)
                self._cache_keys[position] = Announced(cache_key, signature)
            self._weights.append(weight)
            return self.first + position

    def put_off(self, position: int, delay: Delay) -> None:
        """Give a delay to a node that was added without one."""
        self.delays[position] = delay
        self._weights[position] += DELAY_BYTES

    def _spared(self, refs: Sequence[bytes]) -> int:
        """Return the bytes saved by sources that have the origin of this batch."""
        own = sum(ref[:ORIGIN_BYTES] == self.origin for ref in refs)
        return own * (SOURCE_BYTES - OWN_SOURCE_BYTES)

    def pieces(self, limit: int = MESSAGE_TARGET, start: int = 0) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of pieces of about `limit` bytes, from the node at `start` on.

        Without nodes there is one empty piece. Nodes that are added meanwhile are left for a later call.
        """
        size, end = 0, len(self)
        for position, weight in enumerate(self._weights[start:end], start):
            if size and size + weight > limit:
                yield start, position
                start, size = position, 0
            size += weight
        yield start, end

    def size(self) -> int:
        """Return the number of bytes of all arguments."""
        return sum(map(len, self._arguments))

    def to_message(self, functions: FunctionTable, start: int = 0, stop: int | None = None) -> broker_pb2.Nodes:
        """Return the message of the nodes from `start` to `stop`; the first one also creates the instance."""
        stop = len(self) if stop is None else stop
        envelopes, key_id = self._arguments[start:stop], self._ring.signs_under
        message = broker_pb2.Nodes(
            instance=self.instance,
            creates=self.creates if start == 0 else None,
            origin=self.origin,
            first=self.first + start,
            function=functions.indices(self._specs[start:stop], key_id),
            arguments=envelopes,
            large=_large_values(envelopes),
            trace=self.trace,
        )
        refs = self._refs[start:stop]
        if any(refs):
            message.source_count.extend(map(len, refs))
            source, foreign = references(self.origin, chain.from_iterable(refs))
            message.source.extend(source)
            message.foreign.extend(foreign)
        if self._tolerant:
            message.tolerant.extend(self._tolerated(start, stop))
        if self._keys:
            self._add_keys(message, start, stop)
        if self.delays:
            add_delays(message, self.delays, start, stop)
        if self.waits:
            add_waits(message, self.waits, start, stop)
        if self._cache_keys:
            add_cache_keys(message, self._cache_keys, start, stop)
        return message

    def _add_keys(self, message: broker_pb2.Nodes, start: int, stop: int) -> None:
        index: dict[str, int] = {}
        keys = [self._keys.get(position) for position in range(start, stop)]
        column = [0 if key is None else index.setdefault(key, len(index) + 1) for key in keys]
        if index:
            message.keys.extend(index)
            message.key.extend(column)

    def _tolerated(self, start: int, stop: int) -> Iterator[int]:
        """Yield the indices of tolerated sources in the column of sources of these nodes."""
        before = 0
        for position in range(start, stop):
            for place in self._tolerant.get(position, ()):
                yield before + place
            before += len(self._refs[position])


def references(origin: bytes, node_ids: Iterable[bytes]) -> tuple[list[int], list[bytes]]:
    """Return node IDs as references in a batch of `origin`, and the list of foreign IDs that these refer to."""
    foreign: dict[bytes, int] = {}
    found = [
        int.from_bytes(node_id[ORIGIN_BYTES:], "big")
        if node_id[:ORIGIN_BYTES] == origin
        else -1 - foreign.setdefault(node_id, len(foreign))
        for node_id in node_ids
    ]
    return found, list(foreign)


def _large_values(envelopes: Iterable[bytes]) -> list[bytes]:
    found = (large_values(envelope) for envelope in envelopes if envelope[1] & NAMES_LARGE)
    return list(dict.fromkeys(chain.from_iterable(found)))


def submit_requests(runs: Iterable[NodeBatch]) -> list[broker_pb2.SubmitRequest]:
    """Return the messages of one submission, a single one if a unary call can hold it."""
    requests, pieces = list[broker_pb2.SubmitRequest](), list[broker_pb2.Nodes]()
    functions, size = FunctionTable(), 0
    for run in runs:
        for start, stop in run.pieces(UNARY_LIMIT):
            nodes = run.to_message(functions, start, stop)
            added = nodes.ByteSize() + RUN_BYTES
            if pieces and size + added > UNARY_LIMIT:
                requests.append(broker_pb2.SubmitRequest(functions=functions.functions, nodes=pieces))
                functions, pieces, size = FunctionTable(), [], 0
                nodes = run.to_message(functions, start, stop)
            pieces.append(nodes)
            size += added
    requests.append(broker_pb2.SubmitRequest(functions=functions.functions, nodes=pieces))
    return requests
