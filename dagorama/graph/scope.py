"""Scopes: the targets of decorated calls, which become nodes and are submitted together.

The rule: a scope records calls and never runs one. In a client, an instance has an InstanceScope while its entry point
runs and an ImmediateScope afterwards; in a running node, an instance has the AttemptScope of the attempt.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from dagorama.api import broker_pb2
from dagorama.api.contract import ORIGIN_BYTES
from dagorama.client.large_values import LARGE_FROM, WHAT_IS_PUT, leave_for_submission
from dagorama.context import OVER, Attempt, attempt_here
from dagorama.errors import NotInInstance
from dagorama.graph.cache import CachedRun
from dagorama.graph.delays import Delay
from dagorama.graph.immediate_scope import encoded_call, refuse_strangers
from dagorama.graph.node_batch import FunctionSpec, NodeBatch
from dagorama.graph.start_options import Started, StartOptions
from dagorama.graph.submission import submit
from dagorama.graph.waits import Wait
from dagorama.models.promise import DAGPromise, InstanceRef, Place
from dagorama.models.value_ref import ValueRef
from dagorama.values.codec import encode, encode_call
from dagorama.values.envelope import refreshed
from dagorama.values.out_of_band import PutLarge
from dagorama.values.signing import Keyring

#: The end of the error message for calls in a fork.
FORKED = "in a fork of the process that runs the node, and would be lost; call it in the node's own process"
#: Held while a scope gets its batch of nodes, and while it is closed.
_changing = threading.Lock()


#: Returns a function with other code.
Binding = Callable[[FunctionSpec], FunctionSpec]
#: Called with a batch that has grown, and the number of added bytes of arguments.
OnGrowth = Callable[[NodeBatch, int], None]


class _BatchScope:
    """The common part of InstanceScope and AttemptScope: calls become nodes of one batch until the scope is closed."""

    __slots__ = (
        "_closed", "_instance", "_large_from", "_ring", "_run", "bound", "constructor", "on_growth", "put_large",
        "refresh", "runs", "scheduled", "trace",
    )  # fmt: skip

    asks_the_broker = False

    def __init__(
        self, instance: bytes, run: NodeBatch | None, large_from: int, put_large: PutLarge, ring: Keyring | None
    ) -> None:
        self._instance = instance
        self._run = run
        self.runs = [] if run is None else [run]  #: its own nodes, then the nodes of each instance that it made
        self._ring = ring
        self._large_from = large_from
        self.put_large = put_large
        self.constructor: bytes | ValueRef | None = None  #: the packed constructor arguments of each call
        self.bound: Binding | None = None  #: gives functions the code that the instance is bound to
        self._closed = ""  # the reason
        self.on_growth: OnGrowth | None = None  #: called after each call
        self.trace = ""  #: the trace context that the created nodes get
        self.scheduled = ""  #: the time for which a schedule has started the instance; its nodes hand it on
        self.refresh = False  #: whether all created nodes run even if their values are cached

    def call(
        self,
        instance: InstanceRef,
        function: FunctionSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: Place,
        delay: Delay | None = None,
        refresh: bool = False,
    ) -> DAGPromise[Any]:
        if self._closed:
            raise NotInInstance(f"{function.name} was called at {place[0]}:{place[1]} {self._closed}")
        if self.bound is not None:
            function = self.bound(function)
        key = None if function.key_of is None else function.key_of(args, kwargs)
        if function.json is None:  # as `encoded_call`, without another call: this is done for each node
            encoded = encode_call(
                args, kwargs, function.function, large_from=self._large_from, put_large=self.put_large,
                constructor=self.constructor, scheduled=self.scheduled,
            )  # fmt: skip
        else:
            encoded = encoded_call(
                function, args, kwargs, self._large_from, self.put_large, self.constructor, self.scheduled
            )
        if encoded.refs:
            refuse_strangers(encoded, self._instance, function, place)
        if refresh or self.refresh:
            encoded = encoded._replace(envelope=refreshed(encoded.envelope))
        keys, cache_key = function.cache_keys, None
        if keys is not None:
            cache_key = keys.at_call(encoded, self._instance, args, kwargs, self.constructor)
        run = self._run
        if run is None:
            run = self._first_run(function)
        counter = run.add(function, encoded, key, delay, cache_key=cache_key)
        if self.on_growth is not None:
            self.on_growth(run, len(encoded.envelope))
        return DAGPromise._made(run.origin, counter, self._instance, function.name, args, kwargs, place)

    def wait(self, function: FunctionSpec, wait: Wait, place: Place) -> DAGPromise[Any]:
        """Create a node that waits for a signal; return its promise."""
        if self._closed:
            raise NotInInstance(f"wait_for({wait.name!r}) was called at {place[0]}:{place[1]} {self._closed}")
        encoded = wait.arguments()
        run = self._run or self._first_run(function)
        counter = run.add(function, encoded, wait=wait)
        if self.on_growth is not None:
            self.on_growth(run, len(encoded.envelope))
        return DAGPromise._made(run.origin, counter, self._instance, function.name, (wait.name,), {}, place)

    def _first_run(self, function: FunctionSpec) -> NodeBatch:
        """Make the batch of nodes once, even if several threads make the first calls."""
        with _changing:
            if self._closed:
                raise NotInInstance(f"{function.name} was called {self._closed}")
            if self._run is None:
                self._run = NodeBatch(self._instance, os.urandom(ORIGIN_BYTES), ring=self._ring)
                self._run.trace = self.trace
                self.runs.insert(0, self._run)
            return self._run

    def close(self) -> None:
        """Refuse all later calls, also calls that other threads have begun."""
        with _changing:
            self._closed = OVER
        if self._run is not None:
            self._run.close()

    def abandon(self) -> None:
        """Refuse all later calls in a fork of the process, without locks, which may be locked forever there."""
        self._closed = FORKED


class InstanceScope(_BatchScope):
    """A new instance while its entry point runs: launch() submits all its nodes at once."""

    __slots__ = ("_hand_over",)

    def __init__(
        self,
        instance: bytes,
        hand_over: Callable[[NodeBatch], None] = submit,
        large_from: int = LARGE_FROM,
        put_large: PutLarge = leave_for_submission,
        ring: Keyring | None = None,
    ) -> None:
        run = NodeBatch(instance, instance[:ORIGIN_BYTES], ring=ring)
        super().__init__(instance, run, large_from, put_large, ring)
        self._hand_over = hand_over

    def launch(
        self,
        definition: str,
        entry: bytes | None,
        options: StartOptions | None = None,
        hook: broker_pb2.FailureHook | None = None,
    ) -> None:
        """Submit the instance; `entry` is the ID of the node of its entry point, `hook` is called if it fails."""
        assert self._run is not None
        creates = self._run.creates = broker_pb2.NewInstance(definition=definition, entry=entry or b"", hook=hook)
        if options is not None:
            creates.name, creates.digest = options.id, options.digest
            creates.priority, creates.fair = options.priority, options.fair
            creates.labels.update(options.labels)
            if options.delay is not None:
                self._run.put_off(0, options.delay)
        self._hand_over(self._run)


class AttemptScope(_BatchScope):
    """The calls of a running node: its child nodes belong to the attempt and become visible with its result.

    The executor makes a scope for each attempt, holds it in `current_attempt` while the function runs, closes it
    afterwards, and sends `runs` with the result, or drops them. The child nodes of an eager function are sent while it
    runs, by `on_growth`.
    """

    __slots__ = ("_scopes", "cached", "started")

    def __init__(
        self,
        instance: bytes,
        large_from: int = LARGE_FROM,
        put_large: PutLarge = leave_for_submission,
        ring: Keyring | None = None,
    ) -> None:
        super().__init__(instance, None, large_from, put_large, ring)
        self._scopes: list[InstanceScope] = []  # of the instances that it made
        self.started: Started = {}
        self.cached: CachedRun | None = None  #: of a node whose value is cached

    @property
    def origin(self) -> bytes | None:
        """The origin of the attempt's own nodes; None if there are none yet."""
        return None if self._run is None else self._run.origin

    def new_instance(self, instance: bytes) -> InstanceScope:
        """Return the scope of a new instance of this attempt, which is submitted if its entry point returns."""
        self._check_open("a definition was called")

        def take(run: NodeBatch) -> None:
            with _changing:
                self._check_open("a definition was called")
                self.runs.append(run)
                self._scopes.append(scope)
            run.trace = self.trace
            if self.on_growth is not None:
                scope.on_growth = self.on_growth
                self.on_growth(run, run.size())

        scope = InstanceScope(instance, take, self._large_from, self.put_large, self._ring)
        scope.refresh = self.refresh
        return scope

    def put(self, value: object) -> tuple[bytes, bool]:
        """Store the large parts of a value for put(); return its envelope, and whether it contains promises."""
        self._check_open("put() was called")
        encoded = encode(value, WHAT_IS_PUT, large_from=self._large_from, put_large=self.put_large)
        return encoded.envelope, bool(encoded.promises)

    def _check_open(self, what: str) -> None:
        if self._closed:
            raise NotInInstance(f"{what} {self._closed}")

    def made(self, node_id: bytes) -> bool:
        """Return whether this attempt has made the node."""
        return any(node_id[:ORIGIN_BYTES] == run.origin for run in self.runs)

    def close(self) -> None:
        super().close()
        for scope in self._scopes:
            scope.close()

    def abandon(self) -> None:
        super().abandon()
        for scope in self._scopes:
            scope.abandon()


def attempt_scope() -> AttemptScope | None:
    """Return the scope of the attempt that runs here; None outside of nodes. Raises NotInInstance as attempt_here()."""
    attempt = attempt_here()
    assert attempt is None or isinstance(attempt, AttemptScope)
    return attempt


#: The scope of the entry point that this thread or task runs, and the attempt that has called it.
_entry: ContextVar[tuple[InstanceScope, Attempt | None] | None] = ContextVar("dagorama_entry", default=None)


@contextmanager
def running_entry(scope: InstanceScope, attempt: Attempt | None) -> Iterator[None]:
    """Let `entry_scope` return the scope of an entry point that is called in the block by this attempt, if any."""
    token = _entry.set((scope, attempt))
    try:
        yield
    finally:
        _entry.reset(token)


def entry_scope() -> InstanceScope | None:
    """Return the scope of the entry point that this thread or task runs, unless a node runs in it."""
    entry = _entry.get()
    return entry[0] if entry is not None and entry[1] is attempt_here() else None


def _renew_lock() -> None:
    # Another thread of the parent may have held it at the fork.
    global _changing
    _changing = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
