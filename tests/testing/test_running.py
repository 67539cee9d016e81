from __future__ import annotations

import asyncio
import re
import threading
import traceback
from collections.abc import Iterator
from threading import Lock
from typing import Any

import pytest

import dagorama_testing.running
from dagorama import (
    DAGDefinition,
    Failure,
    ProcessDied,
    ResourceNotOpened,
    dagorama,
    launch_workers,
    outcome,
    resolve,
    resource,
)
from dagorama.client.connection import connection
from dagorama_testing import NothingHappens, inline, run_inline, run_inline_async
from tests.support.brokers import launch_broker
from tests.support.worker_nodes import Opaque
from tests.testing.graphs import AsyncShapes, Lenient, Patient, Shapes


def test_a_graph_runs_in_this_thread_and_returns_its_value() -> None:
    seen = set()

    class Where(DAGDefinition):
        @dagorama
        def entrypoint(self) -> list[int]:
            return [self.here(), self.here()]

        @dagorama
        def here(self) -> int:
            seen.add(threading.get_ident())
            return 1

    assert run_inline(Where()) == [1, 1]
    assert seen == {threading.get_ident()}


def test_a_taint_needs_no_worker_of_its_own() -> None:
    assert run_inline(Shapes(), 8) == 140


def test_an_entry_point_that_is_not_decorated_may_return_promises() -> None:
    class Pair(DAGDefinition):
        def entrypoint(self, number: int) -> tuple[int, int]:
            return self.doubled(number), 3

        @dagorama
        def doubled(self, number: int) -> int:
            return 2 * number

    assert run_inline(Pair(), 4) == (8, 3)


def test_an_async_graph_runs_without_a_loop() -> None:
    assert run_inline(AsyncShapes(), 5) == 30


async def test_graphs_run_within_a_running_loop() -> None:
    loop = asyncio.get_running_loop()
    assert run_inline(AsyncShapes(), 5) == 30
    assert run_inline(Shapes(), 5) == 30
    assert asyncio.get_running_loop() is loop
    assert asyncio.current_task() is not None


async def test_async_nodes_share_the_loop_of_the_test() -> None:
    asked: asyncio.Queue[asyncio.Future[int]] = asyncio.Queue()

    async def answer() -> None:
        for number in range(3):
            (await asked.get()).set_result(number)

    class Asking(DAGDefinition):
        @dagorama
        async def entrypoint(self) -> list[int]:
            return [await self.question() for _ in range(3)]

        @dagorama
        async def question(self) -> int:
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            await asked.put(future)
            return await future

    server = asyncio.create_task(answer())
    assert sorted(await run_inline_async(Asking())) == [0, 1, 2]
    await server


def test_a_sync_node_may_run_a_loop_of_its_own() -> None:
    class Own(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            return asyncio.run(self._later())

        async def _later(self) -> int:
            await asyncio.sleep(0)
            return 5

    async def within() -> int:
        return run_inline(Own())

    assert asyncio.run(within()) == 5


def test_an_exception_is_raised_itself_with_its_own_traceback() -> None:
    class Own(Exception):
        def __init__(self, first: int, second: int) -> None:
            super().__init__("cannot be unpickled")

    raised = []

    class Failing(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            return self.broken()

        @dagorama
        def broken(self) -> int:
            raised.append(Own(1, 2))
            raise raised[0]

    with pytest.raises(Own) as caught:
        run_inline(Failing())
    assert caught.value is raised[0]
    frames = traceback.extract_tb(caught.value.__traceback__)
    ours = dagorama_testing.running.__file__
    assert [frame.name for frame in frames if frame.filename != ours][1:] == ["broken"]
    (note,) = caught.value.__notes__
    assert "broken" in note
    assert "attempt 1" in note


def test_an_exception_of_an_async_node_that_cannot_be_looked_at_ends_the_run() -> None:
    class Task(DAGDefinition):
        @dagorama
        async def entrypoint(self) -> None:
            raise Opaque

    with pytest.raises(Opaque):
        run_inline(Task())


def test_the_exception_of_the_last_attempt_is_raised_after_pauses_that_take_no_time() -> None:
    with pytest.raises(ZeroDivisionError, match="3 by nothing") as caught:
        run_inline(Patient(), 3)
    assert "attempt 3" in caught.value.__notes__[0]


def test_a_tolerated_failure_is_not_raised() -> None:
    assert run_inline(Lenient()) == "builtins.KeyError"


def test_failures_without_an_exception_raise_those_of_dagorama() -> None:
    with inline() as world:
        world.die(Shapes.total, times=None)
        instance, _ = Shapes()(2)
        world.run()
        with pytest.raises(ProcessDied):
            dagorama_testing.running._value(world, instance, Shapes.attach(instance.instance_id)[1])


def test_a_resource_that_cannot_be_opened_is_an_error_with_its_cause() -> None:
    @resource
    def model() -> Iterator[int]:
        raise OSError("no such file")
        yield 1

    class Using(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            return model()

    with pytest.raises(ResourceNotOpened, match="no such file") as caught:
        run_inline(Using())
    assert isinstance(caught.value.__cause__, OSError)


def test_a_graph_that_cannot_end_says_why() -> None:
    class Stuck(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            connection().pause_queue("stuck")
            return self.waiting()

        @dagorama(queue_name="stuck")
        def waiting(self) -> int:
            return 1

    with pytest.raises(NothingHappens, match="queue 'stuck' is paused"):
        run_inline(Stuck())


def test_an_interruption_ends_the_test() -> None:
    class Stopped(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_inline(Stopped())


def test_a_node_that_cancels_its_own_task_fails() -> None:
    class Impatient(DAGDefinition):
        @dagorama
        async def entrypoint(self) -> str:
            return await self.kind_of(outcome(await self.waiting()))

        @dagorama
        async def waiting(self) -> int:
            task = asyncio.create_task(asyncio.sleep(60, 1))
            task.cancel()
            return await task

        @dagorama
        async def kind_of(self, result: int | Failure) -> str:
            return result.type if isinstance(result, Failure) else ""

    assert run_inline(Impatient()) == "asyncio.exceptions.CancelledError"


def test_skipping_in_a_node_skips_the_test() -> None:
    class Skipped(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            pytest.skip("not today")

    with pytest.raises(pytest.skip.Exception, match="not today"):
        run_inline(Skipped())


def test_values_are_pickled() -> None:
    class Shared(DAGDefinition):
        @dagorama
        def entrypoint(self) -> list[int]:
            values = [1]
            changed = self.changed(values)
            values.append(9)
            return changed

        @dagorama
        def changed(self, values: list[int]) -> list[int]:
            return [*values, 2]

    assert run_inline(Shared()) == [1, 2]


@pytest.mark.parametrize(("given", "advice"), [(Shapes, "pass Shapes()"), (print, "such as MyTask()")])
def test_something_else_than_a_definition_is_refused(given: Any, advice: str) -> None:
    with pytest.raises(TypeError, match=re.escape(advice)):
        run_inline(given, 1)


async def test_something_else_than_a_definition_is_refused_in_async_code() -> None:
    wrong: Any = Shapes
    with pytest.raises(TypeError, match=re.escape("pass Shapes()")):
        await run_inline_async(wrong, 1)


def test_a_class_that_ran_inline_need_not_reach_workers_that_are_launched_later() -> None:
    lock = Lock()

    class Guarded(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            with lock:
                return 1

    class Plain(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            return 2

    assert run_inline(Guarded()) == 1
    with launch_broker(port=0), launch_workers(1):
        assert resolve(*Plain()(), timeout=30) == 2
