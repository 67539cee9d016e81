"""Where decorated calls go: each becomes a node in columns that are handed over in one piece.

The rule: a scope describes calls and never runs one. A spawner's instance has a GatherScope while its entry
point runs and a DirectScope afterwards; an instance inside a running node has that attempt's AttemptScope.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Protocol

from dagorama.api import broker_pb2
from dagorama.connection import MESSAGE_LIMIT, connection
from dagorama.errors import NotInInstance, RefusedByBroker, WrongInstance
from dagorama.models.promise import ORIGIN_BYTES, DAGPromise, Place
from dagorama.values import LARGE, Encoded, PutLarge, encode_call, large_of

if TYPE_CHECKING:
    from dagorama.instance import DAGInstance
    from dagorama.options import KeyOf, Options

#: bytes of pickle from which an argument is stored as a value of its own, until the broker says otherwise
LARGE_FROM = 256 * 1024
#: bytes of nodes in one message
PIECE = 1024 * 1024
#: bytes of nodes up to which one unary call takes them
UNARY_LIMIT = 2 * 1024 * 1024
#: bytes of one node, which cannot be split
NODE_LIMIT = MESSAGE_LIMIT - 64 * 1024
#: what one node and one of its sources cost at most beside the envelope; a source of the same origin costs less
NODE_BYTES, SOURCE_BYTES, OWN_SOURCE_BYTES = 24, 24, 5
#: what tolerating the failure of a source adds, and a character of a concurrency key
TOLERANT_BYTES, KEY_BYTES = 4, 4


@dataclass(frozen=True, slots=True, eq=False)
class FunctionSpec:
    """What a node runs and under which rules: one for each decorated function and definition class."""

    name: str  #: "module:Class.method", with "@module:Base" behind it for a super() call
    hash: str
    queue: str
    options: Options
    key_of: KeyOf | None  #: works out the concurrency key of a call; None where there is none
    is_async: bool
    function: Callable[..., Any]  #: the plain function, as it was written
    python_name: str  #: its `__name__` when its hash was computed

    def to_message(self) -> broker_pb2.Function:
        options = self.options
        return broker_pb2.Function(
            name=self.name,
            hash=self.hash,
            queue=self.queue,
            taint=options.taint_name or "",
            retry=options.retry.as_policy() if options.retry is not None else None,
            is_async=self.is_async,
            timeout=options.timeout or 0,
            queue_timeout=options.queue_timeout or 0,
            priority=options.priority,
            max_concurrency=options.max_concurrency or 0,
            delay=options.delay,
            eager=options.eager,
            max_deaths=options.max_deaths or 0,
        )


class FunctionTable:
    """The functions of one message; its nodes name them by index."""

    __slots__ = ("_index", "functions")

    def __init__(self) -> None:
        self._index: dict[FunctionSpec, int] = {}
        self.functions: list[broker_pb2.Function] = []

    def index(self, spec: FunctionSpec) -> int:
        found = self._index.get(spec)
        if found is None:
            found = self._index[spec] = len(self.functions)
            self.functions.append(spec.to_message())
        return found


class NodesRun:
    """Nodes of one instance made by one maker, in order, as columns. Any thread may add to it."""

    __slots__ = (
        "_arguments", "_keys", "_lock", "_refs", "_specs", "_tolerant", "creates", "first", "instance", "origin",
    )  # fmt: skip

    def __init__(self, instance: bytes, origin: bytes, first: int = 0) -> None:
        self.instance = instance
        self.origin = origin
        self.first = first
        self.creates: broker_pb2.NewInstance | None = None
        self._specs: list[FunctionSpec] = []
        self._arguments: list[bytes] = []
        self._refs: list[Sequence[bytes]] = []
        # By position: few nodes have any.
        self._tolerant: dict[int, Sequence[int]] = {}
        self._keys: dict[int, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many nodes there are; all columns have them."""
        with self._lock:
            return len(self._specs)

    def add(self, spec: FunctionSpec, encoded: Encoded, key: str | None = None) -> int:
        """The new node's counter, `key` being its concurrency key; raises RefusedByBroker for a node that no message
        could carry."""
        weight = _weight(encoded.envelope, encoded.refs, encoded.tolerant)
        if weight > NODE_LIMIT and weight - self._spared(encoded.refs) > NODE_LIMIT:
            raise RefusedByBroker(
                f"a call of {spec.name} names {len(encoded.refs):,} promises, more than one message holds; "
                "reduce them in groups",
                "INVALID_ARGUMENT",
            )
        with self._lock:
            self._specs.append(spec)
            self._arguments.append(encoded.envelope)
            self._refs.append(encoded.refs)
            position = len(self._specs) - 1
            if encoded.tolerant:
                self._tolerant[position] = encoded.tolerant
            if key is not None:
                self._keys[position] = key
            return self.first + position

    def _spared(self, refs: Sequence[bytes]) -> int:
        """Bytes that these sources weigh less, because some of them are of this run's origin."""
        own = sum(ref[:ORIGIN_BYTES] == self.origin for ref in refs)
        return own * (SOURCE_BYTES - OWN_SOURCE_BYTES)

    def pieces(self, limit: int = PIECE, start: int = 0) -> Iterator[tuple[int, int]]:
        """(start, stop) of the nodes from `start` on, in runs that weigh about `limit` bytes; one piece where there
        are no nodes. Those that come in meanwhile are left for a later call."""
        size, end = 0, len(self)
        for position in range(start, end):
            weight = self._weight(position)
            if size and size + weight > limit:
                yield start, position
                start, size = position, 0
            size += weight
        yield start, end

    def _weight(self, position: int) -> int:
        tolerant = self._tolerant.get(position, ()) if self._tolerant else ()
        weight = _weight(self._arguments[position], self._refs[position], tolerant)
        return weight + KEY_BYTES * len(self._keys.get(position, "")) if self._keys else weight

    def to_message(self, functions: FunctionTable, start: int = 0, stop: int | None = None) -> broker_pb2.Nodes:
        """The nodes from `start` up to `stop`; what makes the instance goes with the first."""
        stop = len(self) if stop is None else stop
        envelopes = self._arguments[start:stop]
        message = broker_pb2.Nodes(
            instance=self.instance,
            creates=self.creates if start == 0 else None,
            origin=self.origin,
            first=self.first + start,
            function=[functions.index(spec) for spec in self._specs[start:stop]],
            arguments=envelopes,
            large=_large_values(envelopes),
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
        return message

    def _add_keys(self, message: broker_pb2.Nodes, start: int, stop: int) -> None:
        index: dict[str, int] = {}
        keys = [self._keys.get(position) for position in range(start, stop)]
        column = [0 if key is None else index.setdefault(key, len(index) + 1) for key in keys]
        if index:
            message.keys.extend(index)
            message.key.extend(column)

    def _tolerated(self, start: int, stop: int) -> Iterator[int]:
        """Places in the column of sources of these nodes."""
        before = 0
        for position in range(start, stop):
            for place in self._tolerant.get(position, ()):
                yield before + place
            before += len(self._refs[position])


def references(origin: bytes, node_ids: Iterable[bytes]) -> tuple[list[int], list[bytes]]:
    """Node ids as the wire's references beside a run of `origin`, and the list of foreign ids that they name."""
    foreign: dict[bytes, int] = {}
    found = [
        int.from_bytes(node_id[ORIGIN_BYTES:], "big")
        if node_id[:ORIGIN_BYTES] == origin
        else -1 - foreign.setdefault(node_id, len(foreign))
        for node_id in node_ids
    ]
    return found, list(foreign)


def _weight(envelope: bytes, refs: Sequence[bytes], tolerant: Sequence[int]) -> int:
    return len(envelope) + NODE_BYTES + SOURCE_BYTES * len(refs) + TOLERANT_BYTES * len(tolerant)


def _large_values(envelopes: Iterable[bytes]) -> list[bytes]:
    found = (large_of(envelope) for envelope in envelopes if envelope[1] & LARGE)
    return list(dict.fromkeys(large[0] for large in found if large is not None))


def submit_requests(run: NodesRun) -> list[broker_pb2.SubmitRequest]:
    """The messages of one submission: a single one as long as a unary call may carry it."""
    requests = []
    for start, stop in run.pieces(UNARY_LIMIT):
        functions = FunctionTable()
        nodes = run.to_message(functions, start, stop)
        requests.append(broker_pb2.SubmitRequest(functions=functions.functions, nodes=[nodes]))
    return requests


def submit(run: NodesRun) -> None:
    """Hands a run to the broker; returns when it is durable."""
    connection().submit(submit_requests(run))


def put_through_connection(data: bytes) -> bytes:
    return connection().put_value(data)


Made = Callable[[], None]


class Scope(Protocol):
    """Where an instance's decorated calls go."""

    @property
    def asks_the_broker(self) -> bool:
        """Whether each call waits for the broker, so that async code had better make it in a thread."""
        ...

    def call(
        self,
        instance: DAGInstance,
        function: FunctionSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: Place,
    ) -> DAGPromise[Any]: ...


class DirectScope:
    """A spawner's calls on an instance that exists: each is one submission."""

    __slots__ = ("_ids",)

    asks_the_broker = True

    def __init__(self) -> None:
        self._ids: tuple[int, bytes, Iterator[int]] | None = None

    def call(
        self,
        instance: DAGInstance,
        function: FunctionSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: Place,
    ) -> DAGPromise[Any]:
        owner = instance.instance_id.bytes
        key = None if function.key_of is None else function.key_of(args, kwargs)
        encoded = encode_call(
            args, kwargs, function.function, large_from=LARGE_FROM, put_large=put_through_connection
        )
        _refuse_strangers(encoded, owner, function, place)
        run = NodesRun(owner, *self._new_id())
        counter = run.add(function, encoded, key)
        submit(run)
        return DAGPromise._made(run.origin, counter, owner, function.name, args, kwargs, place)

    def _new_id(self) -> tuple[bytes, int]:
        ids = self._ids
        # Ids must differ from those that a forked child goes on to make.
        if ids is None or ids[0] != os.getpid():
            ids = self._ids = os.getpid(), os.urandom(ORIGIN_BYTES), count()
        return ids[1], next(ids[2])


class _Gathering:
    """What GatherScope and AttemptScope share: calls become nodes of one run until the scope is closed."""

    __slots__ = ("_closed", "_instance", "_large_from", "_made", "_put_large", "_run")

    asks_the_broker = False

    def __init__(
        self, instance: bytes, run: NodesRun | None, large_from: int, put_large: PutLarge, made: Made | None
    ) -> None:
        self._instance = instance
        self._run = run
        self._large_from = large_from
        self._put_large = put_large
        self._made = made
        self._closed = False

    def call(
        self,
        instance: DAGInstance,
        function: FunctionSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: Place,
    ) -> DAGPromise[Any]:
        if self._closed:
            raise NotInInstance(
                f"{function.name} was called at {place[0]}:{place[1]} on an instance whose run is over; "
                "call it before the run returns"
            )
        key = None if function.key_of is None else function.key_of(args, kwargs)
        encoded = encode_call(
            args, kwargs, function.function, large_from=self._large_from, put_large=self._put_large
        )
        if encoded.refs:
            _refuse_strangers(encoded, self._instance, function, place)
        run = self._run
        if run is None:
            run = self._run = NodesRun(self._instance, os.urandom(ORIGIN_BYTES))
        counter = run.add(function, encoded, key)
        if self._made is not None:
            self._made()
        return DAGPromise._made(run.origin, counter, self._instance, function.name, args, kwargs, place)

    def close(self) -> None:
        """Refuses every later call."""
        self._closed = True


class GatherScope(_Gathering):
    """A new instance while its entry point runs: nothing is known outside until launch(), and then all of it."""

    __slots__ = ("_hand_over",)

    def __init__(
        self,
        instance: bytes,
        hand_over: Callable[[NodesRun], None] = submit,
        large_from: int = LARGE_FROM,
        put_large: PutLarge = put_through_connection,
        made: Made | None = None,
    ) -> None:
        super().__init__(instance, NodesRun(instance, instance[:ORIGIN_BYTES]), large_from, put_large, made)
        self._hand_over = hand_over

    def launch(self, definition: str, entry: bytes | None) -> None:
        """Makes the instance, `entry` being the id of its entry point's node."""
        assert self._run is not None
        self._run.creates = broker_pb2.NewInstance(definition=definition, entry=entry or b"")
        self._hand_over(self._run)


class AttemptScope(_Gathering):
    """A running node: what it calls belongs to the attempt and becomes visible with its result.

    The executor makes one for each attempt, holds it in `current_attempt` while the function runs, closes it
    when that has ended and sends `runs` with the result, or drops them. For a function that is `eager` it gives
    `made`, which is called in the thread of each call when `runs` may have more to send than before.
    """

    __slots__ = ("_parts",)

    def __init__(
        self,
        instance: bytes,
        large_from: int = LARGE_FROM,
        put_large: PutLarge = put_through_connection,
        made: Made | None = None,
    ) -> None:
        super().__init__(instance, None, large_from, put_large, made)
        self._parts: list[tuple[NodesRun, GatherScope]] = []

    @property
    def origin(self) -> bytes | None:
        """The origin of the attempt's own nodes; None as long as it has made none."""
        return None if self._run is None else self._run.origin

    @property
    def runs(self) -> list[NodesRun]:
        """The attempt's own nodes, then those of each instance that it made."""
        own = [] if self._run is None else [self._run]
        return own + [run for run, _ in self._parts]

    def new_instance(self, instance: bytes) -> GatherScope:
        """The scope of an instance made by this attempt; it counts once its entry point has returned."""
        if self._closed:
            raise NotInInstance("a definition was called by a run that is over; call it before the run returns")

        def take(run: NodesRun) -> None:
            self._parts.append((run, scope))
            if self._made is not None:
                self._made()

        scope = GatherScope(instance, take, self._large_from, self._put_large, self._made)
        return scope

    def made(self, node_id: bytes) -> bool:
        """Whether the node is this attempt's, and so not known to the broker yet."""
        return any(node_id[:ORIGIN_BYTES] == run.origin for run in self.runs)

    def close(self) -> None:
        super().close()
        for _, scope in self._parts:
            scope.close()


#: the attempt whose function this thread or task is running
current_attempt: ContextVar[AttemptScope | None] = ContextVar("dagorama_current_attempt", default=None)


def _refuse_strangers(encoded: Encoded, owner: bytes, function: FunctionSpec, place: Place) -> None:
    """Raises WrongInstance when a promise of another instance is among the arguments."""
    for promise in encoded.promises:
        if promise._instance_bytes is not None and promise._instance_bytes != owner:
            raise WrongInstance(
                f"{function.name} was called at {place[0]}:{place[1]} with a promise of another instance: "
                f"{promise!r}; resolve() it first, or make both calls in one instance"
            )
