"""Runs nodes and puts what becomes of them in the outbox. No transport; whatever a node does, nothing is raised here.

A node's way: its function is looked up and its code compared, its arguments are read, the function runs on an
instance of its own, its result and the nodes that it made are written down.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context, copy_context
from functools import partial
from inspect import isawaitable
from itertools import chain, repeat
from logging import INFO
from time import monotonic_ns
from typing import Any, NamedTuple
from uuid import UUID

from dagorama.api import broker_pb2 as pb
from dagorama.client.large_values import LARGE_FROM, LargeValues
from dagorama.context import Run, current_attempt, current_run, never
from dagorama.definition import DAGDefinition, instance_within
from dagorama.errors import (
    CodeMismatchException,
    DefinitionDiffers,
    DefinitionNotRegistered,
    FunctionNotFound,
    RefusedByBroker,
    TamperedValue,
    UncheckableValue,
)
from dagorama.graph.constructor_arguments import packed
from dagorama.graph.definitions import definition_like
from dagorama.graph.node_batch import NODE_LIMIT, Binding, binding
from dagorama.graph.scope import AttemptScope
from dagorama.logging import get_logger
from dagorama.retry import RetryConfiguration, has_runs_left, verdict
from dagorama.serializer import find
from dagorama.values.assembly import decode_promised
from dagorama.values.codec import Encoded, decode, decode_called, encode
from dagorama.values.envelope import PLAIN, REFS, references
from dagorama.values.failures import failed_source
from dagorama.values.out_of_band import GetLarge
from dagorama.values.rebind import Wanted, check_adoption
from dagorama.values.signing import FAILURE, RESULT, SignedValues, code_text, function_digest, keyring
from dagorama.worker.child import process_state
from dagorama.worker.child.exceptions import signed_exception
from dagorama.worker.child.forks import forget_in_forks, leave
from dagorama.worker.child.outbox import Outbox, weight
from dagorama.worker.failures import bounded, describe, overrun

_LOG_BYTES = 500
_LONGEST = 2**32 - 1  # microseconds that a message can hold, 71 minutes

#: what an unusable function raises, and why the node is given back then
_REASONS: dict[type[BaseException], pb.ReturnReason.ValueType] = {
    FunctionNotFound: pb.NOT_IMPORTABLE,
    CodeMismatchException: pb.CODE_MISMATCH,
}


class _Unchecked(Exception):
    """What the node needs cannot be checked here; nothing of it was read."""


class _Unusable(Exception):
    """The definition that the node runs on cannot be had in this process; its cause says why."""


class _Target(NamedTuple):
    cls: type[DAGDefinition]
    function: Callable[..., Any]
    retry: RetryConfiguration | None
    bound: Binding | None  #: gives the functions that it calls the code of the caller's class; None: they have it


class Work:
    """A function as the broker names it, and once it was needed, what it is here."""

    __slots__ = (
        "class_code", "code", "definition", "digest", "eager", "hash", "is_async", "key_id", "name", "target",
        "timeout", "unusable",
    )  # fmt: skip

    def __init__(self, function: pb.Function) -> None:
        self.name = function.name
        self.hash = function.hash
        self.class_code = function.class_code
        self.code = code_text(function.hash, function.class_code)
        self.digest = function_digest(function.name, self.code)
        self.key_id = function.key_id  #: of the key that its nodes' arguments are said to be signed under
        self.is_async = function.is_async
        self.eager = function.eager
        self.timeout = function.timeout  #: seconds; 0: none
        self.target: _Target | None = None
        self.definition: DAGDefinition | None = None  #: that nodes run on whose callers' has no constructor arguments
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

    def make_definition(self, cls: type[DAGDefinition]) -> DAGDefinition:
        self.definition = _definition(cls, None)
        return self.definition

    def _find(self) -> _Target:
        found = find(self.name, self.hash)
        spec = found.decorated.spec(found.cls)
        if not self.hash:  # the broker asks which code is deployed, to have the node run by that
            raise CodeMismatchException(f"the code of {self.name} here has another hash", spec.hash)
        if spec.hash != self.hash:
            raise CodeMismatchException(
                f"{self.name} has other code here than where the node was made (hash {spec.hash}, not {self.hash})",
                spec.hash,
            )
        is_own = not self.class_code or self.class_code == spec.class_code
        bound = None if is_own else binding(self.class_code)
        return _Target(found.cls, found.decorated.function, found.decorated.options.retry, bound)


def _definition(cls: type[DAGDefinition], constructor: bytes | None) -> DAGDefinition:
    try:
        return definition_like(cls, constructor)
    except DefinitionNotRegistered as error:
        raise _Unusable from error


class Values(NamedTuple):
    """The values that a batch of nodes needs, by the id of the node that they are of."""

    signed: SignedValues
    failed: Mapping[bytes, bytes]  #: a serialized NodeFailure where there is no value

    def read(self, id: bytes, instance: bytes, get_large: GetLarge) -> object:
        """The value of a node of this instance, made anew: no two nodes share an object. A FailedSource where the
        node failed."""
        if id in self.failed:
            return failed_source(self.failed[id], instance)
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
    made_with: str = ""  #: the code that its arguments were signed for, as `code_text` has it; empty: that of `work`
    beside: int = 0  #: a source whose value is that of its own run here, which comes before; 0: none
    adoption: pb.SignedAdoption | None = None  #: what allows `work` to run it although it was made with other code

    @property
    def function(self) -> bytes:
        """The function_digest that its arguments are bound to."""
        return function_digest(self.work.name, self.made_with) if self.made_with else self.work.digest

    @property
    def wanted(self) -> Wanted:
        """What its adoption has to allow, if it was made with other code."""
        return Wanted(self.id, self.instance, self.work.name, self.made_with, self.work.code)


class Executor:
    def __init__(self, outbox: Outbox, large: LargeValues) -> None:
        self.large_from = LARGE_FROM  #: bytes of pickle from which a value is kept beside its envelope
        self.outbox = outbox
        self._large = large
        self._ring = keyring()
        self._tells = get_logger().isEnabledFor(INFO)  # of each node
        self._works: dict[tuple[str, str, str, float, bytes, bool], Work] = {}
        # Nodes that another is to run on, in this process, before their outcomes are known elsewhere; and their ids and
        # values.
        self._handed_on: set[int] = set()
        self._own: dict[int, tuple[bytes, bytes]] = {}
        self.runs: set[Run] = set()  #: under way
        self.last: Call | None = None  #: the sync node that started last or the async one that ended last
        # Where modules are loaded; each run begins with a copy of it, and leaves nothing there.
        self._context = copy_context()
        self._has_decimal = _has_decimal(self._context)
        self._loading = threading.Lock()
        self.forked = False  #: this process is a fork of the one that runs nodes
        forget_in_forks(self)

    def forget(self) -> None:
        """In a fork: what its runs still make would be lost, and how they end is told to nobody."""
        self.forked = True
        for run in self.runs:
            if run.attempt is not None:
                run.attempt.abandon()

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
            chain(grant.beside, repeat(0, count - len(grant.beside))),
            chain(grant.adoption, repeat(0, count - len(grant.adoption))), strict=True,
        )  # fmt: skip
        values, adoptions = self._values(grant), [None, *grant.adoptions]
        return [
            Call(
                node, attempt, works[function], id, instances[instance], arguments, values, runs, made_with, beside,
                adoptions[place],
            )
            for node, attempt, function, id, instance, arguments, runs, made_with, beside, place in columns
        ]  # fmt: skip

    def _values(self, grant: pb.GrantBody) -> Values:
        received = dict(zip(grant.value_id, grant.value, strict=True))
        ids = dict(zip(grant.value_node, grant.value_id, strict=True)) if grant.failed else {}
        failed = {ids[key]: received.pop(ids[key]) for key in grant.failed}
        return Values(SignedValues(self._ring, received), failed)

    def _work(self, function: pb.Function) -> Work:
        key = (
            function.name, function.hash, function.class_code, function.timeout, function.key_id, function.eager
        )  # fmt: skip
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = Work(function)
        return work

    def look_again(self) -> None:
        """Look up what could not be found so far when it is next needed: there are new classes."""
        for work in self._works.values():
            work.unusable = None

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
        self.last = call
        scope = self._scope(call)
        run = Run(call.runs + 1, is_cancelled, scope, call)
        self.runs.add(run)
        try:
            result = self._context.copy().run(self._call, call, scope, run)
        except BaseException as error:
            return self._broke_off(call, error, started, is_cancelled)
        finally:
            self._close(run, scope)
        return self._ended(call, scope, result, started)

    def _call(self, call: Call, scope: AttemptScope, run: Run) -> Any:
        """Call the function of a sync node, in a context of its own."""
        self._enter(scope, run)
        function, args, kwargs = self._open(call, scope)
        try:
            return function(*args, **kwargs)
        finally:
            if process_state.changes:
                process_state.put_back()

    def _enter(self, scope: AttemptScope, run: Run) -> None:
        current_attempt.set(scope)
        current_run.set(run)
        if self._has_decimal:
            _renew_decimal()

    def _close(self, run: Run, scope: AttemptScope) -> None:
        if self.forked:
            leave()
        scope.close()
        run.attempt = None
        self.runs.discard(run)

    async def run_async(self, call: Call, started: int, is_cancelled: Callable[[], bool] = never) -> int:
        """The same for an async function, in a task of its own, which ends at the function's timeout."""
        scope = self._scope(call)
        run = Run(call.runs + 1, is_cancelled, scope, call)
        self.runs.add(run)
        self._enter(scope, run)
        try:
            function, args, kwargs = self._open(call, scope)
            result = function(*args, **kwargs)
            if isawaitable(result):
                result = await (_within(call.work.timeout, result) if call.work.timeout else result)
        except BaseException as error:
            return self._broke_off(call, error, started, is_cancelled)
        finally:
            self._close(run, scope)
            self.last = call
        return self._ended(call, scope, result, started)

    def _scope(self, call: Call) -> AttemptScope:
        scope = AttemptScope(call.instance, self.large_from, self._large.put, self._ring)
        if call.work.eager:
            self.outbox.follow(call.node, call.attempt, scope)
        return scope

    def _open(
        self, call: Call, scope: AttemptScope
    ) -> tuple[Callable[..., Any], tuple[object, ...], dict[str, object]]:
        try:
            if call.made_with:
                check_adoption(call.adoption, call.wanted, self._ring)
            arguments = self._arguments(call)
        except UncheckableValue as error:
            raise _Unchecked(str(error)) from None
        # Only now: looking a function up imports its module.
        cls, function, _, scope.bound = call.work.target or self._load(call.work)
        handed = self._handed(call.beside) if call.beside else {}
        try:
            sources = references(arguments) if arguments[1] & REFS else ()
            fill = [
                handed[id] if id in handed else call.values.read(id, call.instance, self._large.get) for id in sources
            ]
        except UncheckableValue as error:
            raise _Unchecked(str(error)) from None
        args, kwargs, constructor = decode_called(arguments, fill, function, get_large=self._large.get)
        if constructor is None:
            definition = call.work.definition or call.work.make_definition(cls)
        else:
            definition = _definition(cls, constructor)
            scope.constructor = packed(definition, scope.put_large)
        return function, (instance_within(call.instance, definition, scope), *args), kwargs

    def _load(self, work: Work) -> _Target:
        """Look its function up. What the modules that this imports set in their context is there for all runs."""
        with self._loading:
            try:
                return self._context.run(work.load)
            finally:
                self._has_decimal = _has_decimal(self._context)

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
            return self._broke_off(call, error, started)
        if self.forked:
            leave()
        ended = monotonic_ns()
        microseconds = min((ended - started) // 1000, _LONGEST)
        if scope.runs or encoded.envelope[:2] != PLAIN:
            signed = encoded._replace(envelope=envelope)
            self.outbox.completed_with(call.node, call.attempt, signed, scope, microseconds)
        else:
            self.outbox.completed(call.node, call.attempt, envelope, microseconds)
        if self._tells:
            _tell(call, microseconds)
        if self._handed_on and call.node in self._handed_on and encoded.envelope[:2] == PLAIN:
            self._own[call.node] = call.id, encoded.envelope
        return ended

    def _broke_off(
        self, call: Call, error: BaseException, started: int, is_cancelled: Callable[[], bool] = never
    ) -> int:
        if self.forked:
            leave(error)
        return self._ended_cancelled(call) if is_cancelled() else self._ended_badly(call, error, started)

    def _ended_badly(self, call: Call, error: BaseException, started: int) -> int:
        """What the attempt has made is dropped with its scope."""
        ended = monotonic_ns()
        if error is call.work.unusable:
            deployed = error.deployed if isinstance(error, CodeMismatchException) else ""
            reason = _REASONS[type(error)]
            # Without a hash the broker has asked which code is here, and nothing is wrong.
            name = call.work.name if call.work.hash else ""
            self.outbox.returned(call.node, call.attempt, reason, str(error), deployed, name)
        elif isinstance(error, _Unusable):
            why = str(error.__cause__)
            self.outbox.returned(call.node, call.attempt, pb.UNREGISTERED, why, function=call.work.name)
        elif isinstance(error, _Unchecked):
            self.outbox.returned(call.node, call.attempt, pb.UNCHECKABLE, str(error), function=call.work.name)
        else:
            microseconds = min((ended - started) // 1000, _LONGEST)
            exception = signed_exception(error, partial(self._signed_exception, call))
            failure = describe(error, call.node, call.attempt, microseconds, exception)
            final, later = verdict(call.work.target and call.work.target.retry, error)
            failure.final = final or isinstance(error, (TamperedValue, DefinitionDiffers))
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


def _tell(call: Call, microseconds: int) -> None:
    get_logger().info(
        "ran %s: instance %s, node %s, attempt %d, %.6f seconds",
        call.work.name, UUID(bytes=call.instance), UUID(bytes=call.id), call.runs + 1, microseconds / 1e6,
    )


def _log(call: Call, failure: pb.Failure, later: float | None) -> None:
    """A run that raised RetryLater has not failed, unless it was the last that its node has."""
    message, which = bounded(failure.message, _LOG_BYTES), Run(call.runs + 1, call=call).described()
    if later is not None and has_runs_left(call.work.target and call.work.target.retry, call.runs + 1):
        get_logger().info("%s asks to be run again in %g s%s", which, later, f": {message}" if message else "")
    else:
        get_logger().warning("%s failed: %s: %s", which, failure.type, message)


def _has_decimal(context: Context) -> bool:
    """Whether the decimal context there is an object that all copies of `context` would share."""
    return any(variable.name == "decimal_context" for variable in context)


def _renew_decimal() -> None:
    from decimal import getcontext, setcontext

    setcontext(getcontext().copy())


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
