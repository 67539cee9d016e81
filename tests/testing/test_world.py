from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dagorama import (
    NodeFailed,
    NotFound,
    QueueTimeout,
    State,
    later,
    resolve,
    state,
)
from dagorama_testing import NothingHappens, SimulatedWorker, inline
from tests.testing.graphs import HOURS, AsyncShapes, Growing, Hurried, Late, Patient, Polite, Shapes, Steps


def test_nothing_runs_before_the_test_says_so() -> None:
    with inline() as world:
        instance, promise = Shapes()(3)
        assert resolve(instance, promise) is None
        assert state(instance, promise) is State.QUEUED
        assert world.runs == []
        assert world.run() == 5
        assert resolve(instance, promise) == 5


def test_as_many_nodes_run_as_the_test_says() -> None:
    with inline() as world:
        instance, promise = Steps()(10)
        assert world.run(nodes=4) == 4
        assert [run.result for run in world.runs_of(Steps.step)] == [1, 2, 3]
        assert resolve(instance, promise) is None
        assert world.run() == 7
        assert resolve(instance, promise) == 10


@pytest.mark.parametrize("apart", [1e-9, 0.001, 0.0049, 0.005, 0.0051])
def test_what_is_due_a_moment_later_waits_for_its_time(apart: float) -> None:
    with inline() as world:
        instance, promise = Shapes()(0)
        delays = [10.0, 10.0 + apart, 10.0 + 2 * apart]
        total = instance.total([later(instance.square, delay)(number) for number, delay in enumerate(delays)])
        world.run()
        assert resolve(instance, promise) == 0
        assert resolve(instance, total) == 0 + 1 + 4
        assert [run.at for run in world.runs_of(Shapes.square)] == pytest.approx(delays, rel=0, abs=1e-12)


# --- failing and replacing ----------------------------------------------------------------------------


def test_a_function_fails_as_often_as_the_test_says() -> None:
    with inline() as world:
        world.fail(Shapes.square, ConnectionError("no"), times=2)
        instance, promise = Shapes()(1)
        world.run()
        assert world.clock.passed == 2 * 60
        assert [(run.attempt, type(run.error), run.at) for run in world.runs_of(Shapes.square)] == [
            (1, ConnectionError, 0), (2, ConnectionError, 60), (3, type(None), 120),
        ]  # fmt: skip
        assert resolve(instance, promise) == 0


def test_a_function_that_always_fails_fails_its_graph() -> None:
    with inline() as world:
        world.fail(Shapes.square, ConnectionError, times=None)
        instance, promise = Shapes()(1)
        world.run()
        with pytest.raises(NodeFailed) as caught:
            resolve(instance, promise)
        assert (caught.value.type, caught.value.attempts) == ("builtins.ConnectionError", 4)


def test_another_function_runs_in_place_of_a_decorated_one() -> None:
    with inline() as world:
        world.replace(Shapes.square, lambda self, number: number)
        instance, promise = Shapes()(4)
        world.run()
        assert resolve(instance, promise) == 6
        assert [run.args for run in world.runs_of(Shapes.square)] == [(0,), (1,), (2,), (3,)]


def test_a_replacement_may_create_nodes() -> None:
    def twice(self: Shapes, number: int) -> int:
        return self.total([number, number])

    with inline() as world:
        world.replace(Shapes.square, twice)
        instance, promise = Shapes()(3)
        world.run()
        assert resolve(instance, promise) == 6


async def test_an_async_function_is_replaced_by_a_sync_one_and_by_an_async_one() -> None:
    async def half(self: AsyncShapes, number: int) -> int:
        await asyncio.sleep(0)
        return number // 2

    with inline() as world:
        world.replace(AsyncShapes.square, half)
        instance, promise = await AsyncShapes()(5)
        await world.arun()
        assert resolve(instance, promise) == 4


@pytest.mark.parametrize("times", [0, -1, True, 1.5])
def test_a_number_of_times_is_checked(times: int) -> None:
    with inline() as world, pytest.raises(ValueError, match="times="):
        world.fail(Shapes.square, OSError, times=times)


def test_only_decorated_methods_have_rules() -> None:
    def plain() -> None: ...

    async def other(self: Shapes, number: int) -> int:
        return number

    with inline() as world:
        with pytest.raises(TypeError, match="decorated method"):
            world.fail(plain, OSError)
        with pytest.raises(TypeError, match="exception"):
            world.fail(Shapes.square, "no")  # type: ignore[arg-type]  # the mistake that it refuses
        with pytest.raises(TypeError, match="async function"):
            world.replace(Shapes.square, other)  # type: ignore[arg-type]  # the mistake that it refuses


@pytest.mark.parametrize("nodes", [0, -1, True, 1.5])
def test_a_number_of_nodes_is_from_1_up(nodes: Any) -> None:
    with inline() as world, pytest.raises(ValueError, match="from 1 up"):
        world.run(nodes)


def test_a_world_that_has_ended_runs_nothing_and_still_tells_what_ran() -> None:
    with inline() as world:
        Shapes()(1)
        world.run()
    for act in (world.run, lambda: world.clock.advance(1), world.restart_broker):
        with pytest.raises(RuntimeError, match="has ended"):
            act()
    with pytest.raises(RuntimeError, match="has ended"):
        world.add_worker(SimulatedWorker())
    assert len(world.runs_of(Shapes.square)) == 1


# --- time ---------------------------------------------------------------------------------------------


def test_the_clock_stands_still_while_nodes_run() -> None:
    with inline() as world:
        Shapes()(50)
        world.run()
        assert world.clock.passed == 0


def test_pauses_between_attempts_are_those_of_the_definition() -> None:
    with inline() as world:
        world.fail(Growing.entrypoint, OSError, times=3)
        instance, promise = Growing()()
        world.run()
        assert [run.at for run in world.runs] == [0, 2, 6, 14]
        assert resolve(instance, promise) == 7


def test_a_rate_takes_no_time_and_its_clock_says_when_nodes_start() -> None:
    with inline() as world:
        instance, promise = Polite()(7)
        assert resolve(instance, promise, timeout=None) == [0, 1, 2, 3, 4, 5, 6]
        assert [run.at for run in world.runs_of(Polite.call)] == [0, 0, 0, HOURS, HOURS, HOURS, 2 * HOURS]
        world.restart_broker()
        world.run()
        again, values = Polite()(1)
        assert resolve(again, values, timeout=None) == [0]
        assert world.runs_of(Polite.call)[-1].at >= 3 * HOURS  # nothing with a rate starts for one period


def test_advancing_the_clock_runs_what_becomes_due() -> None:
    with inline() as world:
        instance, promise = Late()()
        world.clock.advance(HOURS - 1)
        assert resolve(instance, promise) is None
        world.clock.advance(1)
        assert resolve(instance, promise) == "now"


def test_the_clock_advances_over_several_attempts() -> None:
    with inline() as world:
        instance, promise = Patient()(1)
        world.clock.advance(3 * HOURS)
        assert [run.at for run in world.runs_of(Patient.divide)] == [0, 2 * HOURS]
        assert world.clock.passed == 3 * HOURS
        assert state(instance, promise) is not State.FAILED


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_the_clock_advances_by_a_number_from_0_up(seconds: float) -> None:
    with inline() as world, pytest.raises(ValueError, match="advance"):
        world.clock.advance(seconds)


def test_a_node_that_no_worker_may_run_fails_at_its_queue_timeout() -> None:
    with inline([SimulatedWorker(tolerations=())]) as world:
        instance, promise = Hurried()()
        world.run()
        assert world.clock.passed == 600
        with pytest.raises(QueueTimeout):
            resolve(instance, promise)


def test_an_instance_is_removed_after_its_retention() -> None:
    with inline(retention=2 * HOURS) as world:
        instance, promise = Steps()(2)
        world.run()
        world.clock.advance(1 * HOURS)
        assert resolve(instance, promise) == 2
        world.clock.advance(3 * HOURS)
        with pytest.raises(NotFound, match="retention of 2 h"):
            resolve(instance, promise)


def test_a_wait_with_a_timeout_waits_by_the_clock_of_the_world() -> None:
    with inline() as world:
        instance, promise = Late()()
        with pytest.raises(TimeoutError, match="no value after 60 seconds"):
            resolve(instance, promise, timeout=60)
        assert world.clock.passed == 60
        assert resolve(instance, promise, timeout=HOURS) == "now"
        assert world.clock.passed == HOURS


def test_a_wait_that_would_never_end_says_why() -> None:
    with inline([SimulatedWorker(tolerations=())]):
        instance, promise = Shapes()(1)
        with pytest.raises(NothingHappens, match="GPU"):
            resolve(instance, promise, timeout=None)
