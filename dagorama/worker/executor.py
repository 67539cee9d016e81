"""Runs nodes and puts what becomes of them in the outbox. No transport; whatever a node does, nothing is raised here.

A node's way: its function is looked up and its code compared, its arguments are read, the function runs on an
instance of its own, its result and the nodes that it made are written down.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from itertools import accumulate, chain, repeat
from time import monotonic_ns
from typing import Any, NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.culprits import failed_source
from dagorama.definition import DAGDefinition, instance_within
from dagorama.errors import CodeMismatchException, DefinitionNotRegistered, FunctionNotFound, RefusedByBroker
from dagorama.logging import get_logger
from dagorama.retry import RetryConfiguration, verdict
from dagorama.running import Run, current_run, never
from dagorama.scope import LARGE_FROM, NODE_LIMIT, AttemptScope, current_attempt
from dagorama.serializer import find
from dagorama.values import Encoded, decode, decode_call, decode_promised, encode
from dagorama.worker.failures import bounded, describe, overrun
from dagorama.worker.large import LargeValues
from dagorama.worker.outbox import Outbox, weight

_PLAIN = b"\x01\x00"  # version and flags of an envelope that has neither promises nor a large body
_LOG_BYTES = 500
_LONGEST = 2**32 - 1  # microseconds that a message can hold, 71 minutes

#: what an unusable function raises, and why the node is given back then
_REASONS: dict[type[BaseException], pb.ReturnReason.ValueType] = {
    FunctionNotFound: pb.NOT_IMPORTABLE,
    CodeMismatchException: pb.CODE_MISMATCH,
    DefinitionNotRegistered: pb.UNREGISTERED,
}


class _Target(NamedTuple):
    definition: DAGDefinition
    function: Callable[..., Any]
    retry: RetryConfiguration | None


class Work:
    """A function as the broker names it, and once it was needed, what it is here."""

    __slots__ = ("hash", "is_async", "name", "target", "timeout", "unusable")

    def __init__(self, function: pb.Function) -> None:
        self.name = function.name
        self.hash = function.hash
        self.is_async = function.is_async
        self.timeout = function.timeout  #: seconds; 0: none
        self.target: _Target | None = None
        self.unusable: BaseException | None = None  #: why this process cannot run it

    def load(self) -> _Target:
        """Look it up, once. Raises one of the errors that `_REASONS` names."""
        if self.unusable is not None:
            raise self.unusable
        try:
            self.target = self._find()
        except tuple(_REASONS) as error:
            self.unusable = error.with_traceback(None)
            raise
        return self.target

    def _find(self) -> _Target:
        found = find(self.name)
        if found.decorated.hash != self.hash:
            raise CodeMismatchException(
                f"{self.name} has other code here than where the node was made "
                f"(hash {found.decorated.hash}, not {self.hash})",
                found.decorated.hash,
            )
        return _Target(found.definition, found.decorated.function, found.decorated.options.retry)


class Values(NamedTuple):
    """The values that a batch of nodes needs, by the key of the node that they are of."""

    envelopes: Mapping[int, bytes]
    refs: Mapping[int, Sequence[int]]  #: of those that name others
    failed: frozenset[int] = frozenset()  #: those in whose place there is a serialized NodeFailure

    def read(self, key: int, get_large: Callable[[bytes], bytes | memoryview]) -> object:
        """The value of `key`, made anew: no two nodes share an object. A FailedSource where the node failed."""
        if key in self.failed:
            return failed_source(self.envelopes[key])
        if key in self.refs:
            return decode_promised(key, self.envelopes, self.refs, get_large=get_large)
        return decode(self.envelopes[key], what="value of a node", get_large=get_large)


class Call(NamedTuple):
    """One node to be run."""

    node: int
    attempt: int
    work: Work
    instance: bytes
    arguments: bytes
    sources: Sequence[int]
    values: Values
    runs: int = 0  #: that failed before
    beside: int = 0  #: a source whose value is that of its own run here, which comes before; 0: none


class Executor:
    def __init__(self, outbox: Outbox, large: LargeValues) -> None:
        self.large_from = LARGE_FROM  #: bytes of pickle from which a value is kept beside its envelope
        self.outbox = outbox
        self._large = large
        self._works: dict[tuple[str, str, float], Work] = {}
        # Nodes that another is to run on, in this process, before their outcomes are known elsewhere; and their values.
        self._handed_on: set[int] = set()
        self._own: dict[int, bytes] = {}

    # --- before -------------------------------------------------------------------------------------

    def prepare(self, body: bytes) -> list[Call]:
        """The nodes of a serialized GrantBody, in order. No user code runs and nothing is unpickled."""
        grant = pb.GrantBody.FromString(body)
        works = [self._work(function) for function in grant.functions]
        instances = list(grant.instances)
        values = Values(
            dict(zip(grant.value_node, grant.value, strict=True)),
            dict(_grouped(grant.value_node, grant.value_ref_count, list(grant.value_ref))),
            frozenset(grant.failed),
        )
        count = len(grant.node)
        columns = zip(
            grant.node, grant.attempt, grant.function, grant.instance, grant.arguments,
            grant.run or repeat(0, count), strict=True,
        )  # fmt: skip
        if not grant.source_count:
            return [
                Call(node, attempt, works[function], instances[instance], arguments, (), values, runs)
                for node, attempt, function, instance, arguments, runs in columns
            ]
        sources = dict(_grouped(grant.node, grant.source_count, list(grant.source)))
        self._handed_on.update(key for key in grant.beside if key)
        besides = chain(grant.beside, repeat(0, count - len(grant.beside)))
        return [
            Call(
                node, attempt, works[function], instances[instance], arguments, sources.get(node, ()), values, runs,
                next(besides),
            )
            for node, attempt, function, instance, arguments, runs in columns
        ]

    def _work(self, function: pb.Function) -> Work:
        key = (function.name, function.hash, function.timeout)
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = Work(function)
        return work

    # --- running ------------------------------------------------------------------------------------

    def skip(self, call: Call) -> None:
        """It will not run here: it was taken back."""
        if call.beside:
            self._handed_on.discard(call.beside)
            self._own.pop(call.beside, None)

    def _lacks_its_source(self, call: Call) -> bool:
        """Whether the source that came with it has left no value of its own; then the node is given back."""
        if call.beside in self._own:
            return False
        self.skip(call)
        self.outbox.returned(call.node, call.attempt, pb.UNSTARTED, "")
        return True

    def run(self, call: Call, started: int, is_cancelled: Callable[[], bool] = never) -> int:
        """Run a sync function; returns when it ended, in monotonic nanoseconds, as `started` is."""
        if call.beside and self._lacks_its_source(call):
            return monotonic_ns()
        scope = AttemptScope(call.instance, self.large_from, self._large.put)
        token = current_attempt.set(scope)
        run_token = current_run.set(Run(call.runs + 1, is_cancelled))
        try:
            function, args, kwargs = self._open(call, scope)
            result = function(*args, **kwargs)
        except BaseException as error:
            return self._ended_cancelled(call) if is_cancelled() else self._ended_badly(call, error, started)
        finally:
            scope.close()
            current_run.reset(run_token)
            current_attempt.reset(token)
        return self._ended(call, scope, result, started)

    async def run_async(self, call: Call, started: int, is_cancelled: Callable[[], bool] = never) -> int:
        """The same for an async function, in a task of its own, which ends at the function's timeout."""
        scope = AttemptScope(call.instance, self.large_from, self._large.put)
        current_attempt.set(scope)
        current_run.set(Run(call.runs + 1, is_cancelled))
        try:
            function, args, kwargs = self._open(call, scope)
            result = function(*args, **kwargs)
            if isawaitable(result):
                result = await (_within(call.work.timeout, result) if call.work.timeout else result)
        except BaseException as error:
            return self._ended_cancelled(call) if is_cancelled() else self._ended_badly(call, error, started)
        finally:
            scope.close()
        return self._ended(call, scope, result, started)

    def _open(
        self, call: Call, scope: AttemptScope
    ) -> tuple[Callable[..., Any], tuple[object, ...], dict[str, object]]:
        definition, function, _ = call.work.target or call.work.load()
        fill = [call.values.read(key, self._large.get) for key in call.sources if key != call.beside]
        if call.beside:
            fill.insert(call.sources.index(call.beside), self._handed(call.beside))
        args, kwargs = decode_call(call.arguments, fill, function, get_large=self._large.get)
        return function, (instance_within(call.instance, definition, scope), *args), kwargs

    def _handed(self, source: int) -> object:
        """The value of a node that ran here before, made anew as for any other consumer."""
        self._handed_on.discard(source)
        return decode(self._own.pop(source), what="value of a node")

    # --- after --------------------------------------------------------------------------------------

    def _ended(self, call: Call, scope: AttemptScope, result: object, started: int) -> int:
        try:
            encoded = encode(result, "result", large_from=self.large_from, put_large=self._large.put)
            if encoded.refs:
                _refuse_excess(encoded)
        except BaseException as error:
            return self._ended_badly(call, error, started)
        ended = monotonic_ns()
        microseconds = min((ended - started) // 1000, _LONGEST)
        if scope.runs or encoded.envelope[:2] != _PLAIN:
            self.outbox.completed_with(call.node, call.attempt, encoded, scope, microseconds)
        else:
            self.outbox.completed(call.node, call.attempt, encoded.envelope, microseconds)
        if self._handed_on and call.node in self._handed_on and encoded.envelope[:2] == _PLAIN:
            self._own[call.node] = encoded.envelope
        return ended

    def _ended_badly(self, call: Call, error: BaseException, started: int) -> int:
        """What the attempt has made is dropped with its scope."""
        ended = monotonic_ns()
        if error is call.work.unusable:
            deployed = error.deployed if isinstance(error, CodeMismatchException) else ""
            self.outbox.returned(call.node, call.attempt, _REASONS[type(error)], str(error), deployed)
        else:
            failure = describe(error, call.node, call.attempt, min((ended - started) // 1000, _LONGEST))
            final, later = verdict(call.work.target and call.work.target.retry, error)
            failure.final = final
            if later is not None:
                failure.retry_after = later
            message = bounded(failure.message, _LOG_BYTES)
            get_logger().warning("%s failed: %s: %s", call.work.name, failure.type, message)
            self.outbox.failed(failure)
        return ended

    def _ended_cancelled(self, call: Call) -> int:
        """Nobody wants to hear of it: to the broker it ended when it was cancelled."""
        get_logger().info("%s was cancelled while it ran", call.work.name)
        return monotonic_ns()


async def _within(seconds: float, running: Awaitable[object]) -> object:
    """Its result; raises TimeoutError where it takes longer, from the place where it was by then."""
    import asyncio

    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            result = await running
    except BaseException as error:
        if not deadline.expired():
            raise
        raise overrun(seconds).with_traceback((error.__cause__ or error).__traceback__) from None
    if deadline.expired():  # it has swallowed its cancellation
        raise overrun(seconds)
    return result


def _grouped(keys: Sequence[int], counts: Sequence[int], flat: list[int]) -> list[tuple[int, list[int]]]:
    """(key, its part of the flat list) for each key that has any."""
    ends = accumulate(counts)
    return [(key, flat[end - count : end]) for key, count, end in zip(keys, counts, ends, strict=False) if count]


def _refuse_excess(encoded: Encoded) -> None:
    if weight(encoded) > NODE_LIMIT:
        raise RefusedByBroker(
            f"the result names {len(encoded.refs):,} promises, more than one message holds; reduce them in groups",
            "INVALID_ARGUMENT",
        )
