"""Simulated workers, and worlds as a whole."""

from __future__ import annotations

import os
from typing import Any

import pytest

from dagorama import (
    BrokerError,
    DAGDefinition,
    NotFound,
    State,
    dagorama,
    execute_worker,
    launch_workers,
    resolve,
    state,
)
from dagorama.client.connection import is_inline
from dagorama.errors import WorkersNotStarted
from dagorama_testing import SimulatedWorker, inline, run_inline
from tests.testing.graphs import Shapes, Steps


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


@pytest.mark.parametrize("name", ["include_queues", "exclude_queues", "tolerations"])
@pytest.mark.parametrize("given", ["GPU", [1]])
def test_queues_and_tolerations_are_lists_of_texts(name: str, given: Any) -> None:
    with pytest.raises(TypeError, match=name):
        SimulatedWorker(**{name: given})


@pytest.mark.parametrize("workers", [SimulatedWorker(), "GPU", [1]], ids=repr)
def test_workers_of_a_world_are_simulated_ones(workers: Any) -> None:
    with pytest.raises(TypeError, match="SimulatedWorker"), inline(workers):
        pass


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_retention_is_from_0_up(seconds: float) -> None:
    with pytest.raises(ValueError, match="from 0 up"), inline(retention=seconds):
        pass


def test_no_other_worker_runs_the_nodes_of_a_world() -> None:
    with inline():
        Steps()(1)
        with pytest.raises(WorkersNotStarted, match=r"world\.run"), launch_workers(1):
            pass
        with pytest.raises(BrokerError, match=r"world\.run"):
            execute_worker(infinite_loop=False)


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


class Remembering(DAGDefinition):
    def __init__(self) -> None:
        self.seen: set[int] = set()

    @dagorama
    def entrypoint(self, number: int) -> list[int]:
        self.seen.add(number)
        return sorted(self.seen)


def test_definitions_are_constructed_again_in_each_world() -> None:
    assert run_inline(Remembering(), 1) == [1]
    with inline():
        outer = Remembering()(2)
        assert resolve(*outer, timeout=60) == [2]
        assert run_inline(Remembering(), 3) == [3]
    assert run_inline(Remembering(), 4) == [4]


def test_a_fork_is_outside_of_the_world() -> None:
    with inline():
        assert is_inline()
        pid = os.fork()
        if not pid:
            os._exit(3 if is_inline() else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not is_inline()
