"""Run one node again in the calling process, with its real inputs, for a person who looks for the cause of a failure.

The rule: nothing is reported. Child nodes and large values that the run makes stay in this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from time import monotonic_ns
from typing import Any, NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.client.connection import Connection
from dagorama.client.large_values import BrokerValues, LargeValues
from dagorama.client.waiter import NodeResult, NodeWaiter
from dagorama.errors import ValueNotReadable
from dagorama.graph.scope import AttemptScope
from dagorama.models.state import State
from dagorama.serializer import find
from dagorama.values.envelope import references
from dagorama.values.out_of_band import Buffer, Verified
from dagorama.values.signing import SignedValues, code_text, function_digest, keyring
from dagorama.worker.child.call import Call, Unusable, Values, Work
from dagorama.worker.child.exceptions import Unchecked
from dagorama.worker.child.executor import Executor
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.in_process.worker import prepare_process

#: Returns the function that is called instead of the node's function.
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class Rerun(NamedTuple):
    """The end of a run that was not reported."""

    result: object = None
    error: BaseException | None = None  #: with its traceback; None: the function returned `result`
    created: int = 0  #: child nodes, which were dropped


class Loaded(NamedTuple):
    """A node with its inputs, ready to run."""

    call: Call
    has_other_code: bool  #: the code of its function here is not the code that it was created with


def load(broker: Connection, instance: bytes, node: bytes, name: Callable[[bytes], str]) -> Loaded:
    """Fetch and verify the inputs of a node; `name` returns the name of a node for errors.

    The signatures are verified before the module of the function is imported. Raises UnverifiedValue, TamperedValue,
    FunctionNotFound, ValueNotReadable if a source has no value, and BrokerError.
    """
    details = broker.get_node(instance, node, arguments=True)
    function = details.info.function
    root_cause = details.info.root_cause
    if root_cause and not details.info.started:
        raise ValueNotReadable(
            f"{name(node)} never ran, because its source {name(root_cause)} failed ({details.info.reason}): debug that"
        )
    if details.info.signal.name:
        raise ValueNotReadable(f"{name(node)} waits for a signal and runs no function; debug a node that uses it")
    made_with = details.made_with or code_text(function.hash, function.class_code)
    digest = function_digest(function.name, made_with)
    envelope = keyring().open_arguments(details.arguments, instance, node, digest)
    values = _values(instance, references(envelope), name)
    found = find(function.name, function.hash, function.class_code)
    local = found.decorated.spec(found.cls).hash
    own = pb.Function(name=function.name, hash=local, is_async=function.is_async, key_id=function.key_id)
    call = Call(0, 0, Work(own), node, instance, details.arguments, values, details.info.failed_attempts, made_with)
    return Loaded(call, bool(function.hash) and local != function.hash)


def _values(instance: bytes, sources: tuple[bytes, ...] | list[bytes], name: Callable[[bytes], str]) -> Values:
    """Return the values of these nodes as a worker gets them. Failures are values for nodes that tolerate them."""
    heard = NodeWaiter(dict.fromkeys(sources, instance)).ask() if sources else []
    for each in heard:
        if not each.state.has_ended:
            raise ValueNotReadable(f"its source {name(each.node_id)} is {each.state.name}, so it has no value yet")
    received = {id: envelope for each in heard for id, envelope in each.envelopes.items()}
    failed = {each.node_id: _failure(each) for each in heard if each.state is not State.COMPLETED}
    return Values(SignedValues(keyring(), received), failed)


def _failure(heard: NodeResult) -> bytes:
    return heard.failure.SerializeToString()


def rerun(broker: Connection, call: Call, wrap: Wrap | None = None) -> Rerun:
    """Run the node in this thread. The result has the exception that its function raised, also a BaseException."""
    prepare_process()
    executor = _Executor(_KeptValues(BrokerValues(broker)), wrap)
    if call.work.is_async:
        asyncio.run(_run_async(executor, call))
    else:
        executor.run(call, monotonic_ns())
    return executor.rerun


async def _run_async(executor: Executor, call: Call) -> None:
    await executor.run_async(call, monotonic_ns())


def is_unfit(error: BaseException, call: Call) -> BaseException | None:
    """Return the reason if an error means that this process cannot run the node; None: its function raised it."""
    if isinstance(error, Unusable):
        return error.__cause__ or error
    return error if isinstance(error, Unchecked) or error is call.work.unusable else None


class _Executor(Executor):
    """Keeps how the run ended, and sends nothing."""

    def __init__(self, large: LargeValues, wrap: Wrap | None) -> None:
        super().__init__(Outbox(_drop), large)
        self._wrap = wrap
        self.rerun = Rerun()

    def _check_code(self, call: Call) -> None:
        """Allow the code of this process: the person who debugs the node may have changed it."""

    def _open(
        self, call: Call, scope: AttemptScope
    ) -> tuple[Callable[..., Any], tuple[object, ...], dict[str, object]]:
        function, args, kwargs = super()._open(call, scope)
        return function if self._wrap is None else self._wrap(function), args, kwargs

    def _ended(self, call: Call, scope: AttemptScope, result: object, started: int) -> int:
        self.rerun = Rerun(result, created=sum(map(len, scope.runs)))
        return super()._ended(call, scope, result, started)  # a result that cannot be pickled ends badly

    def _ended_badly(self, call: Call, error: BaseException, started: int) -> int:
        self.rerun = Rerun(error=error)
        return monotonic_ns()


def _drop(kind: Kind, outcome: Outcome) -> None:
    """Send no outcome."""


class _KeptValues:
    """Large values of the broker, and the ones that the run makes, in memory."""

    def __init__(self, values: LargeValues) -> None:
        self._values = values
        self._made: dict[bytes, Buffer] = {}

    def put(self, data: Buffer) -> bytes:
        digest = sha256(data).digest()
        self._made[digest] = bytes(data)
        return digest

    def get(self, digest: bytes) -> Buffer | Verified:
        found = self._made.get(digest)
        return self._values.get(digest) if found is None else found
