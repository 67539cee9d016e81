"""The executor of a simulated worker: the executor of a child process, with the rules of the test."""

from __future__ import annotations

from asyncio import CancelledError
from bdb import BdbQuit
from collections.abc import Callable
from typing import Any
from uuid import UUID

from dagorama.client.large_values import LargeValues
from dagorama.context import never
from dagorama.errors import CodeMismatchException, FunctionNotFound
from dagorama.graph.scope import AttemptScope
from dagorama.worker.child.cached import LookUp
from dagorama.worker.child.call import Call
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.child.traced import TracedExecutor
from dagorama_testing.records import NodeRun
from dagorama_testing.rules import Rules

#: Run time that is reported for each node: with measured times, the order of nodes would depend on the machine.
MICROSECONDS = 100
#: Exceptions that a node fails with. Others end the test: Ctrl-C and `pytest.skip` raise such exceptions.
NODE_ERRORS = (Exception, SystemExit, GeneratorExit, CancelledError)


class InlineExecutor(TracedExecutor):
    """Runs nodes in this thread; keeps the exceptions that they raise, and records their runs."""

    def __init__(self, outbox: Outbox, large: LargeValues, rules: Rules, begin: Callable[[Call], NodeRun]) -> None:
        super().__init__(outbox, large)
        self._rules = rules
        self._begin = begin
        self._runs: dict[int, NodeRun] = {}  # that have not ended, by attempt
        self.errors: dict[UUID, NodeRun] = {}  #: the last failed attempt of each node
        self.interruption: BaseException | None = None  #: what ends the test

    def function_of(self, call: Call) -> Callable[..., Any] | None:
        """Return the function of a node; None if this process cannot run it."""
        try:
            return (call.work.target or self._load(call.work)).function
        except (FunctionNotFound, CodeMismatchException):
            return None

    def _open(
        self, call: Call, scope: AttemptScope
    ) -> tuple[Callable[..., Any], tuple[object, ...], dict[str, object]]:
        run = self._runs[call.attempt] = self._begin(call)
        function, args, kwargs = super()._open(call, scope)
        if scope.cached is not None and scope.cached.is_hit:
            del self._runs[call.attempt]
            return function, args, kwargs
        run.args, run.kwargs = args[1:], kwargs
        self._rules.runs.append((function, run))
        return self._rules.of(function), args, kwargs

    # Nothing wraps the function of the user, so that tracebacks look as in a child process.

    def _ended(self, call: Call, scope: AttemptScope, result: object, started: int) -> int:
        if (run := self._runs.get(call.attempt)) is not None:
            run.result = result
        ended = super()._ended(call, scope, result, started)
        self._runs.pop(call.attempt, None)
        return ended

    def _broke_off(
        self, call: Call, error: BaseException, started: int, is_cancelled: Callable[[], bool] = never
    ) -> int:
        run = self._runs.pop(call.attempt, None)
        if run is not None and type(error) is not LookUp:
            run.error = error
            if not is_cancelled():
                self.errors[run.node_id] = run
        return super()._broke_off(call, error, started, is_cancelled)

    def _ended_badly(self, call: Call, error: BaseException, started: int) -> int:
        if issubclass(type(error), BdbQuit) or not issubclass(type(error), NODE_ERRORS):
            self.interruption = self.interruption or error
        return super()._ended_badly(call, error, started)

    def _measured(self, call: Call, started: int, ended: int) -> int:
        return MICROSECONDS
