"""Nodes start in order, async ones overlap, and results leave even while a node takes long."""

import asyncio
import queue
from collections.abc import Iterator

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.worker.child.async_runner import MAX_CONCURRENT_NODES
from dagorama.worker.child.executor import Executor
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.child.run_loop import RunLoop
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.shared_memory import SharedMemory, SlotMemory
from dagorama.worker.spool_files import SpoolValues
from tests.support import worker_nodes
from tests.support.worker_grants import Wanted, body_of, call, values_of

WAIT = 20  #: seconds after which something that should happen is taken not to


class Working:
    """An engine over a slot's memory; what it sends is in a queue, and what counted as running then in `running`."""

    def __init__(self, slot: SlotMemory, values: SpoolValues) -> None:
        self.slot = slot
        self.running: list[list[int]] = []
        self.sent: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.executor = Executor(Outbox(self._send), values)
        self.engine = RunLoop(self.executor, slot)

    def _send(self, kind: Kind, outcome: Outcome) -> None:
        assert kind == Kind.RESULTS
        self.running.append([ordinal for ordinal, _ in self.slot.running()])
        self.sent.put(outcome)

    def add(self, *wanted: Wanted) -> list[int]:
        """Their attempts."""
        body = body_of(wanted)
        self.engine.add(self.executor.prepare(body.SerializeToString()))
        return list(body.attempt)

    def next(self) -> pb.Results:
        return pb.Results.FromString(self.sent.get(timeout=WAIT).body)

    def attempts(self, count: int) -> list[int]:
        """The attempts of the next results, in one message or several."""
        found: list[int] = []
        while len(found) < count:
            found += self.next().attempt
        return found

    def values(self, count: int) -> list[object]:
        found: list[object] = []
        while len(found) < count:
            results = self.next()
            assert not results.failures, results.failures
            found += values_of(results)
        return found


@pytest.fixture
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Working]:
    worker_nodes.gate.clear()
    worker_nodes.reached.clear()
    worker_nodes.meetings.clear()
    made = Working(SharedMemory(1).slots[0], SpoolValues(tmp_path_factory.mktemp("spool")))
    yield made
    worker_nodes.gate.set()
    made.engine.close()


def test_nodes_run_in_order(working: Working) -> None:
    attempts = working.add(*[call("echo", number) for number in range(5)])
    working.engine.work_off()
    working.engine.flush()
    assert working.attempts(5) == attempts
    assert working.slot.started() == 5
    assert working.slot.running() == []


def test_results_do_not_wait_behind_a_long_node(working: Working) -> None:
    """The gate opens only after the result of the node before it has left."""
    asyncio.run(_run_with_gate(working))


async def _run_with_gate(working: Working) -> None:
    working.add(call("echo", "before"), call("wait_here"))
    running = asyncio.create_task(asyncio.to_thread(working.engine.work_off))
    assert await asyncio.to_thread(working.values, 1) == ["before"]
    assert worker_nodes.reached.wait(WAIT)
    assert len(working.slot.running()) == 1
    worker_nodes.gate.set()
    await running
    working.engine.flush()
    assert working.values(1) == ["let through"]


def test_the_node_that_ended_last_counts_as_running_until_its_result_has_left(working: Working) -> None:
    """Should the process die before, that node may be why; those before it are not blamed."""
    working.add(*[call("echo", number) for number in range(3)])
    working.engine.work_off()
    working.engine.flush()
    assert working.running[-1] == [2]
    assert working.slot.running() == []


def test_after_a_lost_socket_each_result_leaves_by_itself(working: Working) -> None:
    attempts = working.add(*[call("echo", number) for number in range(3)])
    working.engine.careful = True
    working.engine.work_off()
    assert [list(working.next().attempt) for _ in attempts] == [[attempt] for attempt in attempts]


def test_what_was_taken_back_does_not_run(working: Working) -> None:
    attempts = working.add(*[call("echo", number) for number in range(4)])
    assert working.slot.take_back([1, 3]) == [1, 3]
    working.engine.work_off()
    working.engine.flush()
    assert working.attempts(2) == [attempts[0], attempts[2]]


def test_async_nodes_overlap_up_to_the_limit(working: Working) -> None:
    """Each of them ends only when all of them run."""
    working.add(*[call("meet", "all", MAX_CONCURRENT_NODES) for _ in range(MAX_CONCURRENT_NODES)])
    working.engine.work_off()
    assert working.values(MAX_CONCURRENT_NODES) == [MAX_CONCURRENT_NODES] * MAX_CONCURRENT_NODES


def test_more_async_nodes_than_may_overlap_all_run(working: Working) -> None:
    working.add(*[call("meet", "in turn", 1) for _ in range(3 * MAX_CONCURRENT_NODES)])
    working.engine.work_off()
    assert len(working.values(3 * MAX_CONCURRENT_NODES)) == 3 * MAX_CONCURRENT_NODES


def test_the_async_node_that_ended_last_counts_as_running_until_its_result_has_left(working: Working) -> None:
    for name in ("one", "two"):
        working.add(call("meet", name, 1))
        working.engine.work_off()
        assert working.values(1) == [1]
    assert working.running == [[0], [1]]


def test_a_sync_node_runs_while_async_ones_do(working: Working) -> None:
    working.add(call("meet", "two", 2), call("echo", "sync"), call("meet", "two", 2))
    working.engine.work_off()
    working.engine.flush()
    assert sorted(map(str, working.values(3))) == ["2", "2", "sync"]


def test_a_sync_node_may_run_an_event_loop_of_its_own(working: Working) -> None:
    working.add(call("meet", "one", 1), call("run_a_loop"))
    working.engine.work_off()
    working.engine.flush()
    assert sorted(map(str, working.values(2))) == ["1", "run"]


def test_an_async_node_that_blocks_completes(working: Working) -> None:
    """And what had ended before it on the same loop leaves meanwhile."""
    working.add(call("meet", "first", 1), call("block_the_loop"))
    working.engine.work_off()
    assert working.values(1) == [1]
    worker_nodes.gate.set()
    assert working.values(1) == ["let through"]


def test_a_task_that_exits_does_not_end_the_loop(working: Working) -> None:
    working.add(call("exit_in_a_task"), call("meet", "after", 1))
    working.engine.work_off()
    assert sorted(map(str, working.values(2))) == ["1", "caught"]


def test_async_nodes_on_the_callers_loop(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def run() -> list[object]:
        working = Working(SharedMemory(1).slots[0], SpoolValues(tmp_path_factory.mktemp("spool")))
        working.engine = RunLoop(working.executor, working.slot, asyncio.get_running_loop())
        worker_nodes.meetings.clear()
        working.add(call("meet", "here", 2), call("meet", "here", 2))
        working.engine.work_off()
        await asyncio.gather(*working.engine.queue.tasks)
        return await asyncio.to_thread(working.values, 2)

    assert asyncio.run(run()) == [2, 2]


@pytest.mark.parametrize("method", ["make_and_wait", "make_and_wait_async"])
def test_children_of_an_eager_node_leave_while_it_blocks(working: Working, method: str) -> None:
    """The gate opens only after they have left."""
    asyncio.run(_run_eagerly(working, method))


async def _run_eagerly(working: Working, method: str) -> None:
    (attempt,) = working.add(call(method, 3))
    running = asyncio.create_task(asyncio.to_thread(working.engine.work_off))
    children: list[pb.Children] = []
    while sum(len(child.nodes.arguments) for child in children) < 3:
        results = await asyncio.to_thread(working.next)
        assert not results.node
        children += results.children
    assert {child.attempt for child in children} == {attempt}
    worker_nodes.gate.set()
    await running
    working.engine.flush()
    results = await asyncio.to_thread(working.next)
    assert list(results.attempt) == [attempt]
    rest = [child.nodes.first for child in results.children]
    assert (rest, list(results.ref)) == {
        "make_and_wait": ([3], [0, 1, 2, 3]), "make_and_wait_async": ([], [0, 1, 2])
    }[method]  # fmt: skip


def test_an_instance_made_by_an_eager_node_leaves_while_it_blocks(working: Working) -> None:
    asyncio.run(_make_an_instance(working))


async def _make_an_instance(working: Working) -> None:
    working.add(call("make_an_instance_and_wait"))
    running = asyncio.create_task(asyncio.to_thread(working.engine.work_off))
    results = await asyncio.to_thread(working.next)
    assert not results.node
    assert [child.nodes.creates.definition for child in results.children] == ["tests.support.worker_nodes:Counting"]
    worker_nodes.gate.set()
    await running
