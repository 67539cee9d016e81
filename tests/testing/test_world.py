from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dagorama import (
    DAGDefinition,
    NodeCancelled,
    NodeFailed,
    NotFound,
    QueueTimeout,
    State,
    aresolve,
    as_completed,
    batch,
    cancel,
    dagorama,
    events,
    put,
    resolve,
    resolve_all,
    retry_failed,
    start,
    state,
    watch,
)
from dagorama_testing import NothingHappens, SimulatedWorker, inline
from tests.testing.graphs import HOURS, AsyncShapes, Growing, Hurried, Late, Patient, Shapes, Steps


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


# --- the functions of the library ----------------------------------------------------------------------


def test_failed_nodes_are_retried() -> None:
    with inline() as world:
        world.fail(Shapes.square, OSError, times=4)
        instance, promise = Shapes()(1)
        world.run()
        assert state(instance, promise) is State.FAILED
        assert retry_failed(instance).queued == 1
        world.run()
        assert resolve(instance, promise) == 0


def test_an_instance_is_cancelled() -> None:
    with inline() as world:
        instance, promise = Steps()(10)
        world.run(nodes=3)
        assert cancel(instance) > 0
        assert world.run() == 0
        with pytest.raises(NodeCancelled):
            resolve(instance, promise)


def test_an_instance_is_found_by_its_id() -> None:
    with inline() as world:
        first, promise = start(Steps(), id="once")(3)
        again, _ = start(Steps(), id="once")(3)
        assert first.instance_id == again.instance_id
        world.run()
        assert resolve(*Steps.attach(id="once")) == resolve(first, promise) == 3


def test_instances_of_a_batch_are_submitted_together() -> None:
    with inline() as world:
        with batch():
            pairs = [Steps()(count) for count in (1, 2, 3)]
        world.run()
        assert resolve_all(pairs) == [1, 2, 3]


def test_promises_come_in_the_order_in_which_their_nodes_end() -> None:
    class Several(DAGDefinition):
        def entrypoint(self) -> list[int]:
            return [self.number(each) for each in (3, 1, 2)]

        @dagorama
        def number(self, number: int) -> int:
            return number

    with inline():
        instance, promises = Several()()
        given: Any = promises
        found = [resolve(instance, each) for each in as_completed(instance, given)]
        assert found == [3, 1, 2]


async def test_async_code_waits_in_a_world() -> None:
    with inline() as world:
        instance, promise = Shapes()(3)
        assert await aresolve(instance, promise) == 5
        assert {run.worker for run in world.runs} == {"worker"}
        late = Late()()
        with pytest.raises(TimeoutError):
            await aresolve(*late, timeout=5)


async def test_async_waits_run_nodes_in_the_thread_of_the_test() -> None:
    threads = set()

    class Where(DAGDefinition):
        @dagorama
        async def entrypoint(self) -> int:
            threads.add(threading.get_ident())
            return 1

    with inline():
        assert await aresolve(*await Where()()) == 1
    assert threads == {threading.get_ident()}


def test_large_values_pass_through_the_world() -> None:
    class Big(DAGDefinition):
        @dagorama
        def entrypoint(self, data: bytes) -> int:
            return self.length(self.doubled(data))

        @dagorama
        def doubled(self, data: bytes) -> bytes:
            return data + data

        @dagorama
        def length(self, data: bytes) -> int:
            return len(data)

    with inline() as world:
        instance, promise = Big()(put(b"x" * 500_000))
        world.run()
        assert resolve(instance, promise) == 1_000_000


def test_progress_and_events_of_an_instance_end_with_it() -> None:
    with inline():
        instance, promise = Shapes()(3)
        last = list(watch(instance))[-1]
        assert (last.done, last.total) == (5, 5)
        assert resolve(instance, promise) == 5
        assert len(list(events(instance))) > 0


def test_nodes_ask_the_broker_while_they_run() -> None:
    class Asking(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            _, promise = start(Steps(), id="beside")(2)
            instance, _ = Steps.attach(id="beside") if promise is None else (None, None)
            return 1 if instance is None else 2

    with inline() as world:
        instance, promise = Asking()()
        world.run()
        assert resolve(instance, promise) == 1
        assert len(world.runs_of(Steps.step)) == 2


# --- workers ------------------------------------------------------------------------------------------


def test_workers_take_the_queues_and_taints_that_they_say() -> None:
    class Divided(DAGDefinition):
        @dagorama(queue_name="light")
        def entrypoint(self) -> list[str]:
            return [self.drawn(), self.sent()]

        @dagorama(queue_name="render", taint_name="GPU")
        def drawn(self) -> str:
            return "drawn"

        @dagorama(queue_name="mail")
        def sent(self) -> str:
            return "sent"

    workers = [
        SimulatedWorker("light", include_queues=["light"]),
        SimulatedWorker("gpu", exclude_queues=["light", "mail"], tolerations=["GPU"]),
        SimulatedWorker("rest", exclude_queues=["light"], tolerations=()),
    ]
    with inline(workers) as world:
        instance, promise = Divided()()
        world.run()
        assert resolve(instance, promise) == ["drawn", "sent"]
        assert {run.function.rpartition(".")[2]: run.worker for run in world.runs} == {
            "entrypoint": "light", "drawn": "gpu", "sent": "rest",
        }  # fmt: skip


def test_a_worker_that_comes_later_runs_what_waited_for_it() -> None:
    with inline([SimulatedWorker(tolerations=())]) as world:
        instance, promise = Shapes()(2)
        world.run()
        assert state(instance, promise) is State.RESOLVING
        world.add_worker(SimulatedWorker("gpu", tolerations=["GPU"]))
        world.run()
        assert resolve(instance, promise) == 1


def test_worlds_nest_and_leave_nothing_behind() -> None:
    with inline() as outer:
        mine = Steps()(2)
        with inline() as inner:
            inside = Steps()(3)
            inner.run()
            assert resolve(*inside) == 3
        outer.run()
        assert resolve(*mine) == 2
        with pytest.raises(NotFound):
            resolve(*inside)
