"""The functions of the library within a world."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from dagorama import (
    DAGDefinition,
    NodeCancelled,
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
from dagorama_testing import inline
from tests.testing.graphs import Late, Shapes, Steps


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


def test_threads_of_a_test_share_a_world() -> None:
    values: list[int] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with inline():
            threads = [
                threading.Thread(target=lambda: values.append(resolve(*Shapes()(4), timeout=60))) for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert values == [14] * 8
