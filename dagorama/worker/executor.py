"""Runs nodes and puts what becomes of them in the outbox. No transport; whatever a node does, nothing is raised here.

A node's way: its function is looked up and its code compared, its arguments are read, the function runs on an
instance of its own, its result and the nodes that it made are written down.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from inspect import isawaitable
from itertools import chain, repeat
from time import monotonic_ns
from typing import Any, NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.culprits import failed_source
from dagorama.definition import DAGDefinition, instance_within
from dagorama.envelopes import PLAIN, REFS, references
from dagorama.errors import (
    CodeMismatchException,
    DefinitionNotRegistered,
    FunctionNotFound,
    RefusedByBroker,
    TamperedValue,
    UncheckableValue,
)
from dagorama.large import LargeValues
from dagorama.logging import get_logger
from dagorama.parts import GetLarge
from dagorama.retry import RetryConfiguration, has_runs_left, verdict
from dagorama.running import Run, current_run, never
from dagorama.scope import LARGE_FROM, NODE_LIMIT, AttemptScope, current_attempt
from dagorama.serializer import find
from dagorama.signing import FAILURE, RESULT, SignedValues, function_digest, keyring
from dagorama.values import Encoded, decode, decode_call, decode_promised, encode
from dagorama.worker.failures import bounded, describe, overrun
from dagorama.worker.outbox import Outbox, weight

_LOG_BYTES = 500
_LONGEST = 2**32 - 1  # microseconds that a message can hold, 71 minutes

#: what an unusable function raises, and why the node is given back then
_REASONS: dict[type[BaseException], pb.ReturnReason.ValueType] = {
    FunctionNotFound: pb.NOT_IMPORTABLE,
    CodeMismatchException: pb.CODE_MISMATCH,
    DefinitionNotRegistered: pb.UNREGISTERED,
}


class _Unchecked(Exception):
    """What the node needs cannot be checked here; nothing of it was read."""


class _Target(NamedTuple):
    definition: DAGDefinition
    function: Callable[..., Any]
    retry: RetryConfiguration | None


class Work:
    """A function as the broker names it, and once it was needed, what it is here."""

    __slots__ = ("digest", "eager", "hash", "is_async", "key_id", "name", "target", "timeout", "unusable")

    def __init__(self, function: pb.Function) -> None:
        self.name = function.name
        self.hash = function.hash
        self.digest = function_digest(function.name, function.hash)
        self.key_id = function.key_id  #: of the key that its nodes' arguments are said to be signed under
        self.is_async = function.is_async
        self.eager = function.eager
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
    """The values that a batch of nodes needs, by the id of the node that they are of."""

    signed: SignedValues
    failed: Mapping[bytes, bytes]  #: a serialized NodeFailure where there is no value

    def read(self, id: bytes, instance: bytes, get_large: GetLarge) -> object:
        """The value of a node of this instance, made anew: no two nodes share an object. A FailedSource where the
        node failed."""
        if id in self.failed:
            return failed_source(self.failed[id])
        envelope = self.signed.get_of(id, instance)
        if envelope is None or envelope[1] & REFS:
            return decode_promised(id, self.signed, get_large=get_large)
        return decode(envelope, what="value of a node", get_large=get_large)


class Call(NamedTuple):
    """One node to be run. Which values it needs is in its arguments, which are signed."""

    node: int
    attempt: int
    work: Work
    id: bytes
    instance: bytes
    arguments: bytes
    values: Values
    runs: int = 0  #: that failed before
    made_with: str = ""  #: hash of the code that its arguments were signed for; empty: that of `work`
    beside: int = 0  #: a source whose value is that of its own run here, which comes before; 0: none

    @property
    def function(self) -> bytes:
        """The function_digest that its arguments are bound to."""
        return function_digest(self.work.name, self.made_with) if self.made_with else self.work.digest


class Executor:
    def __init__(self, outbox: Outbox, large: LargeValues) -> None:
        self.large_from = LARGE_FROM  #: bytes of pickle from which a value is kept beside its envelope
        self.outbox = outbox
        self._large = large
        self._ring = keyring()
        self._works: dict[tuple[str, str, float, bytes, bool], Work] = {}
        # Nodes that another is to run on, in this process, before their outcomes are known elsewhere; and their ids and
        # values.
        self._handed_on: set[int] = set()
        self._own: dict[int, tuple[bytes, bytes]] = {}

    # --- before -------------------------------------------------------------------------------------

    def prepare(self, body: bytes) -> list[Call]:
        """The nodes of a serialized GrantBody, in order. No user code runs and nothing is unpickled."""
        grant = pb.GrantBody.FromString(body)
        works = [self._work(function) for function in grant.functions]
        instances = list(grant.instances)
        count = len(grant.node)
        self._handed_on.update(key for key in grant.beside if key)
        columns = zip(
            grant.node, grant.attempt, grant.function, grant.id, grant.instance, grant.arguments,
            grant.run or repeat(0, count), grant.made_with or repeat("", count),
            chain(grant.beside, repeat(0, count - len(grant.beside))), strict=True,
        )  # fmt: skip
        values = self._values(grant)
        return [
            Call(node, attempt, works[function], id, instances[instance], arguments, values, runs, made_with, beside)
            for node, attempt, function, id, instance, arguments, runs, made_with, beside in columns
        ]

    def _values(self, grant: pb.GrantBody) -> Values:
        received = dict(zip(grant.value_id, grant.value, strict=True))
        ids = dict(zip(grant.value_node, grant.value_id, strict=True)) if grant.failed else {}
        failed = {ids[key]: received.pop(ids[key]) for key in grant.failed}
        return Values(SignedValues(self._ring, received), failed)

    def _work(self, function: pb.Function) -> Work:
        key = (function.name, function.hash, function.timeout, function.key_id, function.eager)
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
        scope = self._scope(call)
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
        scope = self._scope(call)
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

    def _scope(self, call: Call) -> AttemptScope:
        scope = AttemptScope(call.instance, self.large_from, self._large.put, self._ring)
        if call.work.eager:
            self.outbox.follow(call.node, call.attempt, scope)
        return scope

    def _open(
        self, call: Call, scope: AttemptScope
    ) -> tuple[Callable[..., Any], tuple[object, ...], dict[str, object]]:
        definition, function, _ = call.work.target or call.work.load()
        handed = self._handed(call.beside) if call.beside else {}
        try:
            arguments = self._arguments(call)
            sources = references(arguments) if arguments[1] & REFS else ()
            fill = [
                handed[id] if id in handed else call.values.read(id, call.instance, self._large.get) for id in sources
            ]
        except UncheckableValue as error:
            raise _Unchecked(str(error)) from None
        args, kwargs = decode_call(arguments, fill, function, get_large=self._large.get)
        return function, (instance_within(call.instance, definition, scope), *args), kwargs

    def _arguments(self, call: Call) -> bytes:
        try:
            return self._ring.open_arguments(call.arguments, call.instance, call.id, call.function)
        except UncheckableValue:
            # Given back, it would keep this process from the nodes of those who do sign under that key.
            if call.work.key_id not in self._ring.ids:
                raise
            raise TamperedValue(
                f"the arguments of node {call.id.hex()} are not signed under the key that it was made under"
            ) from None

    def _handed(self, source: int) -> dict[bytes, object]:
        """The value of a node that ran here before, by its id, made anew as for any other consumer."""
        self._handed_on.discard(source)
        id, envelope = self._own.pop(source)
        return {id: decode(envelope, what="value of a node")}

    # --- after --------------------------------------------------------------------------------------

    def _ended(self, call: Call, scope: AttemptScope, result: object, started: int) -> int:
        try:
            encoded = encode(result, "result", large_from=self.large_from, put_large=self._large.put)
            envelope = self._ring.sign(encoded.envelope, RESULT, call.instance, call.id)
            if encoded.refs:
                _refuse_excess(encoded)
        except BaseException as error:
            return self._ended_badly(call, error, started)
        ended = monotonic_ns()
        microseconds = min((ended - started) // 1000, _LONGEST)
        if scope.runs or encoded.envelope[:2] != PLAIN:
            signed = encoded._replace(envelope=envelope)
            self.outbox.completed_with(call.node, call.attempt, signed, scope, microseconds)
        else:
            self.outbox.completed(call.node, call.attempt, envelope, microseconds)
        if self._handed_on and call.node in self._handed_on and encoded.envelope[:2] == PLAIN:
            self._own[call.node] = call.id, encoded.envelope
        return ended

    def _ended_badly(self, call: Call, error: BaseException, started: int) -> int:
        """What the attempt has made is dropped with its scope."""
        ended = monotonic_ns()
        if error is call.work.unusable:
            deployed = error.deployed if isinstance(error, CodeMismatchException) else ""
            self.outbox.returned(call.node, call.attempt, _REASONS[type(error)], str(error), deployed)
        elif isinstance(error, _Unchecked):
            self.outbox.returned(call.node, call.attempt, pb.UNCHECKABLE, str(error))
        else:
            microseconds = min((ended - started) // 1000, _LONGEST)
            failure = describe(error, call.node, call.attempt, microseconds, partial(self._signed_exception, call))
            final, later = verdict(call.work.target and call.work.target.retry, error)
            failure.final = final or isinstance(error, TamperedValue)
            if later is not None:
                failure.retry_after = later
            _log(call, failure, later)
            self.outbox.failed(failure)
        return ended

    def _signed_exception(self, call: Call, pickled: bytes) -> bytes:
        return self._ring.sign(PLAIN + pickled, FAILURE, call.instance, call.id)

    def _ended_cancelled(self, call: Call) -> int:
        """Nobody wants to hear of it: to the broker it ended when it was cancelled."""
        self.outbox.dropped(call.attempt)
        get_logger().info("%s was cancelled while it ran", call.work.name)
        return monotonic_ns()


def _log(call: Call, failure: pb.Failure, later: float | None) -> None:
    """A run that raised RetryLater has not failed, unless it was the last that its node has."""
    message = bounded(failure.message, _LOG_BYTES)
    if later is not None and has_runs_left(call.work.target and call.work.target.retry, call.runs + 1):
        because = f": {message}" if message else ""
        get_logger().info("%s asks to be run again in %g s%s", call.work.name, later, because)
    else:
        get_logger().warning("%s failed: %s: %s", call.work.name, failure.type, message)


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


def _refuse_excess(encoded: Encoded) -> None:
    if weight(encoded) > NODE_LIMIT:
        raise RefusedByBroker(
            f"the result names {len(encoded.refs):,} promises, more than one message holds; reduce them in groups",
            "INVALID_ARGUMENT",
        )
