from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dagorama import (
    DAGDefinition,
    DAGInstance,
    DAGPromise,
    NodeCancelled,
    NodeFailed,
    ProcessDied,
    State,
    StaticRetry,
    WorkerLost,
    cancel,
    dagorama,
    resolve,
    state,
)
from dagorama_testing import SimulatedWorker, World, inline
from tests.testing.graphs import Patient, Shapes, Steps


def test_a_node_whose_process_dies_runs_again() -> None:
    with inline() as world:
        world.die(Shapes.square, times=2)
        instance, promise = Shapes()(3)
        world.run()
        assert resolve(instance, promise) == 5
        died = [run.died for run in world.runs_of(Shapes.square)]
        assert died.count(True) == 2
        assert died.count(False) == 3


def test_a_node_whose_process_always_dies_fails() -> None:
    with inline() as world:
        world.die(Shapes.total, times=None)
        instance, promise = Shapes()(2)
        world.run()
        with pytest.raises(ProcessDied):
            resolve(instance, promise)
        assert len(world.runs_of(Shapes.total)) == 3


def test_a_death_takes_no_attempt_of_a_retry() -> None:
    with inline() as world:
        world.die(Patient.divide, times=1)
        instance, promise = Patient()(1)
        world.run()
        with pytest.raises(NodeFailed) as caught:
            resolve(instance, promise)
        assert caught.value.attempts == 3
        assert [(run.attempt, run.died) for run in world.runs_of(Patient.divide)] == [
            (1, True), (1, False), (2, False), (3, False),
        ]  # fmt: skip


def test_nodes_of_a_lost_worker_run_on_another_one() -> None:
    with inline([SimulatedWorker("a"), SimulatedWorker("b")]) as world:
        world.lose(Steps.step, times=1)
        instance, promise = Steps()(5)
        world.run()
        assert resolve(instance, promise) == 5
        assert [run.died for run in world.runs_of(Steps.step)].count(True) == 1


LONG_RUNS: list[int] = []


class Overlapping(DAGDefinition):
    @dagorama
    async def entrypoint(self) -> list[int]:
        return [await self.long(1), await self.last(await self.short(2))]

    @dagorama
    async def long(self, number: int) -> int:
        LONG_RUNS.append(number)
        if len(LONG_RUNS) == 1:
            await asyncio.Event().wait()  # until the process ends
        return number

    @dagorama
    async def short(self, number: int) -> int:
        await asyncio.sleep(0)
        return number

    @dagorama
    async def last(self, number: int) -> int:
        return number


@pytest.mark.parametrize("breakdown", [World.die, World.lose])
def test_async_nodes_that_end_with_their_process_run_again(breakdown: Callable[..., None]) -> None:
    LONG_RUNS.clear()
    with inline() as world:
        breakdown(world, Overlapping.last)
        instance, promise = asyncio.run(_started(Overlapping()))
        world.run()
        assert resolve(instance, promise) == [1, 2]
        broken_off, again = world.runs_of(Overlapping.long)
        assert (broken_off.result, again.result) == (None, 1)
        assert world.error_of(again.node_id) is None


async def _started(definition: Overlapping) -> tuple[DAGInstance, DAGPromise[list[int]]]:
    return await definition()


def test_a_node_that_always_loses_its_worker_fails() -> None:
    with inline() as world:
        world.lose(Shapes.total, times=None)
        instance, promise = Shapes()(2)
        world.run()
        with pytest.raises(WorkerLost):
            resolve(instance, promise)


def test_a_restarted_broker_goes_on_where_it_was() -> None:
    with inline() as world:
        instance, promise = Steps()(20)
        world.run(nodes=7)
        before = len(world.runs)
        world.restart_broker()
        world.run()
        assert resolve(instance, promise) == 20
        assert len(world.runs) == 21
        assert before == 7


def test_pauses_outlast_a_restart_of_the_broker() -> None:
    with inline() as world:
        Patient()(1)
        world.clock.advance(3_600)
        world.restart_broker()
        world.run()
        assert [run.at for run in world.runs_of(Patient.divide)] == [0, 7_200, 14_400]


def test_the_broker_restarts_while_a_node_runs() -> None:
    class Restarting(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            return self.after(self.during())

        @dagorama
        def during(self) -> int:
            return 1

        @dagorama
        def after(self, number: int) -> int:
            return number + 1

    with inline() as world:

        def restart(self: Restarting) -> int:
            world.restart_broker()
            return 1

        world.replace(Restarting.during, restart)
        instance, promise = Restarting()()
        world.run()
        assert resolve(instance, promise) == 2
        assert len(world.runs_of(Restarting.during)) == 1


# --- nodes that hang ----------------------------------------------------------------------------------


class Slow(DAGDefinition):
    @dagorama
    def entrypoint(self) -> int:
        return self.total([self.fetched(), self.other()])

    @dagorama(timeout=30, retry=StaticRetry(max_attempts=3, interval=10))
    def fetched(self) -> int:
        return 1

    @dagorama
    def other(self) -> int:
        return 2

    @dagorama(timeout=30, retry=StaticRetry(max_attempts=3, interval=10, give_up_on=(TimeoutError,)))
    def final(self) -> int:
        return 3

    @dagorama
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


class AsyncSlow(DAGDefinition):
    @dagorama(timeout=30)
    async def entrypoint(self) -> int:
        return 1


def test_a_node_that_hangs_is_stopped_at_its_timeout_and_runs_again() -> None:
    with inline() as world:
        world.hang(Slow.fetched, times=2)
        instance, promise = Slow()()
        world.run()
        assert [run.at for run in world.runs_of(Slow.fetched)] == [0, 40, 80]
        assert [type(run.error) for run in world.runs_of(Slow.fetched)] == [TimeoutError, TimeoutError, type(None)]
        assert resolve(instance, promise) == 3
        assert not any(run.died for run in world.runs)


def test_a_node_that_always_hangs_fails_with_its_timeout() -> None:
    with inline() as world:
        world.hang(Slow.fetched, times=None)
        instance, promise = Slow()()
        with pytest.raises(NodeFailed, match="longer than its timeout of 30 seconds") as caught:
            resolve(instance, promise, timeout=600)
        assert (caught.value.type, caught.value.attempts) == ("builtins.TimeoutError", 3)
        assert world.clock.passed == 110


def test_a_timeout_is_final_if_the_policy_says_so() -> None:
    with inline() as world:
        world.hang(Slow.final, times=None)
        instance, _ = Slow()()
        with pytest.raises(NodeFailed) as caught:
            resolve(instance, instance.final(), timeout=600)
        assert caught.value.attempts == 1


def test_other_workers_go_on_while_a_node_hangs() -> None:
    with inline([SimulatedWorker("a"), SimulatedWorker("b")]) as world:
        world.hang(Slow.fetched, times=1)
        instance, _ = Slow()()
        world.clock.advance(29)
        assert [run.at for run in world.runs_of(Slow.other)] == [0]
        instance.other()
        world.clock.advance(0)
        assert len(world.runs_of(Slow.other)) == 2


def test_an_async_node_hangs_too() -> None:
    async def hanging() -> None:
        with inline() as world:
            world.hang(AsyncSlow.entrypoint)
            instance, promise = await AsyncSlow()()
            await world.arun()
            assert world.clock.passed == 30
            with pytest.raises(NodeFailed, match="longer than its timeout"):
                resolve(instance, promise)

    asyncio.run(hanging())


def test_a_hanging_node_is_cancelled() -> None:
    with inline([SimulatedWorker("a"), SimulatedWorker("b")]) as world:
        world.hang(Slow.fetched, times=None)
        instance, promise = Slow()()
        assert resolve(instance, instance.other(), timeout=5) == 2
        assert state(instance, promise) is State.RESOLVING
        cancel(instance)
        world.run()
        assert world.clock.passed < 30
        with pytest.raises(NodeCancelled):
            resolve(instance, promise)
        assert resolve(*Steps()(3), timeout=5) == 3


def test_a_hanging_node_outlasts_a_restart_of_the_broker() -> None:
    with inline() as world:
        world.hang(Slow.fetched, times=1)
        instance, promise = Slow()()
        world.clock.advance(5)
        world.restart_broker()
        world.run()
        assert resolve(instance, promise) == 3
        assert [run.at for run in world.runs_of(Slow.fetched)] == [0, 40]


def test_a_node_without_a_timeout_may_not_hang() -> None:
    with inline() as world, pytest.raises(ValueError, match="would never end"):
        world.hang(Slow.other)
