from __future__ import annotations

import pytest

from dagorama import DAGDefinition, NodeFailed, ProcessDied, WorkerLost, dagorama, resolve
from dagorama_testing import SimulatedWorker, inline
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
