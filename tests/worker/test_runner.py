"""launch_workers and its handles, with real processes, and a broker that the test speaks for."""

import gc
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.graph.shipping import registered
from dagorama.runner import WorkerHandle, launch_workers
from dagorama.serializer import register_definition
from tests.support.scripted_broker import WAIT, Conversation, ScriptedBroker, environment_of
from tests.support.worker_grants import Wanted, call
from tests.support.worker_nodes import Counting


@pytest.fixture(autouse=True)
def address(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
    monkeypatch.setenv("DAGORAMA_PORT", str(broker.port))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("count", [0, -1])
def test_less_than_one_worker_is_an_error(count: int) -> None:
    with pytest.raises(ValueError, match="at least one"), launch_workers(count):
        pass


def test_workers_run_nodes_and_are_gone_after_the_block(broker: ScriptedBroker) -> None:
    with launch_workers(2) as workers:
        spoken = broker.greeted()
        assert spoken.hello.slots == 2
        pids = []
        for slot in range(2):
            spoken.grant(call("pid"), slot=slot)
            pids.append(spoken.value())
        assert [worker.pid for worker in workers] == pids
        assert all(worker.is_alive() for worker in workers)
        assert [worker.exitcode for worker in workers] == [None, None]
    assert all(is_gone(pid) for pid in pids if isinstance(pid, int))
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.slow
def test_a_block_leaves_no_descriptor_open(broker: ScriptedBroker) -> None:
    def block() -> None:
        with launch_workers(1):
            broker.greeted()

    block()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        block()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_workers_are_gone_after_an_exception_in_the_block(broker: ScriptedBroker) -> None:
    pids: list[int | None] = []

    def fail() -> None:
        with launch_workers(1) as [worker]:
            pids.append(worker.pid)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert all(pid is not None and is_gone(pid) for pid in pids)


def test_what_ran_when_the_block_ended_goes_back(broker: ScriptedBroker) -> None:
    with launch_workers(1):
        spoken = broker.greeted()
        attempts = begun(spoken, slot=0)
    spoken.listen(lambda: bool(spoken.returns))
    [returned] = spoken.returns
    assert (list(returned.attempt), returned.reason) == (attempts, pb.INTERRUPTED)


def begun(spoken: Conversation, slot: int) -> list[int]:
    """The attempt of a node that runs and does not end: the broker cannot have it back."""
    [attempt] = spoken.grant(call("wait_here"), slot=slot)
    last: list[int] = []
    while True:
        last = spoken.grant(call("echo", 1), slot=slot)
        spoken.send(take_back=[pb.TakeBack(slot=slot, attempt=[attempt, *last])])
        if attempt not in spoken.returned().attempt:
            return [attempt]
        [attempt] = spoken.grant(call("wait_here"), slot=slot)


def test_joining_waits_for_the_end(broker: ScriptedBroker) -> None:
    with launch_workers(2, exit_on_completion=True) as workers:
        spoken = broker.greeted()
        workers[0].join(timeout=0)
        with pytest.raises(ValueError, match="timeout is -1: it must be a number of seconds"):
            workers[0].join(timeout=-1)
        assert workers[0].is_alive()
        spoken.send(done=True)
        spoken.listen_to_the_end()
        for worker in workers:
            worker.join(WAIT)
        assert [worker.exitcode for worker in workers] == [0, 0]


def test_one_worker_ends_when_told_to_and_the_others_stay(broker: ScriptedBroker) -> None:
    with launch_workers(2) as workers:
        spoken = broker.greeted()
        spoken.grant(call("echo", 1), slot=1)
        spoken.value()
        workers[0].terminate()
        workers[0].join(math.inf)
        assert workers[0].exitcode == -signal.SIGTERM
        assert workers[1].is_alive()
        spoken.listen(lambda: bool(spoken.closed_slots))
        assert spoken.closed_slots == [0]
        late = spoken.grant(call("pid"), slot=0)
        assert list(spoken.returned().attempt) == late
        spoken.grant(call("pid"), slot=1)
        assert spoken.value() == workers[1].pid


def test_a_worker_that_runs_a_node_gives_it_back_when_it_is_ended(broker: ScriptedBroker) -> None:
    with launch_workers(2) as workers:
        spoken = broker.greeted()
        attempts = begun(spoken, slot=0)
        workers[0].terminate()
        assert list(spoken.returned().attempt) == attempts
        spoken.listen(lambda: bool(spoken.closed_slots))


def test_a_broker_that_comes_later_is_told_which_workers_have_ended(broker: ScriptedBroker) -> None:
    with launch_workers(2) as workers:
        spoken = broker.greeted()
        workers[1].terminate()
        spoken.listen(lambda: bool(spoken.closed_slots))
        spoken.end()
        again = broker.greeted()
        assert again.hello.slots == 2
        again.listen(lambda: bool(again.closed_slots))
        assert again.closed_slots == [1]


def test_a_child_that_died_is_replaced_behind_its_handle(broker: ScriptedBroker) -> None:
    with launch_workers(1) as [worker]:
        spoken = broker.greeted()
        before = worker.pid
        spoken.grant(call("exit_at_once", 1))
        spoken.death()
        spoken.grant(call("pid"))
        assert spoken.value() == worker.pid != before
        assert worker.is_alive()


def test_a_supervisor_that_is_killed_ends_its_workers(broker: ScriptedBroker) -> None:
    with launch_workers(1) as [worker]:
        broker.greeted()
        worker._launched._process.kill()
        worker.join(WAIT)
        assert worker.exitcode == -signal.SIGKILL


def test_without_a_broker_the_workers_wait_for_one(broker: ScriptedBroker) -> None:
    broker.stop()
    with launch_workers(1) as [worker]:
        assert worker.pid
        broker.start_again()
        spoken = broker.greeted()
        spoken.grant(call("echo", 1))
        assert spoken.value() == 1


# --- what the workers get from this process -------------------------------------------------------------------


@pytest.fixture
def counting() -> Iterator[None]:
    register_definition(Counting(100))
    yield
    registered.clear()


def test_registered_definitions_reach_the_workers(broker: ScriptedBroker, counting: None) -> None:
    with launch_workers(1):
        spoken = broker.greeted()
        spoken.grant(Wanted("entrypoint", [1], definition="tests.support.worker_nodes:Counting"))
        assert spoken.value() == 101


def test_the_path_of_this_process_is_the_workers_too(
    broker: ScriptedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text(
        "from dagorama.decorators import dagorama\n"
        "from dagorama.definition import DAGDefinition\n"
        "class Here(DAGDefinition):\n"
        "    @dagorama().syncfn\n"
        "    def entrypoint(self) -> str:\n"
        "        return 'found'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with launch_workers(1):
        spoken = broker.greeted()
        spoken.grant(Wanted("entrypoint", definition="only_here:Here"))
        assert spoken.value() == "found"


# --- processes that launch ------------------------------------------------------------------------------------

SCRIPT = """
import signal, sys
from dagorama.runner import launch_workers
with launch_workers(2) as workers:
    print(*[worker.pid for worker in workers], flush=True)
    sys.stdin.read()
"""


class Launching:
    """A script that launches two workers and stays until it is ended."""

    def __init__(self, broker: ScriptedBroker) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment_of(broker), start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.pids = [int(pid) for pid in self.process.stdout.readline().split()]

    def ended(self) -> tuple[int, str]:
        """Once nobody has its pipes any more, its workers included."""
        _, errors = self.process.communicate(timeout=WAIT)
        return self.process.returncode, errors


@pytest.fixture
def launching(broker: ScriptedBroker) -> Iterator[Launching]:
    made = Launching(broker)
    assert len(made.pids) == 2
    yield made
    made.process.kill()
    made.process.communicate()


def test_nothing_is_left_after_ctrl_c(launching: Launching) -> None:
    """As the terminal sends it: to all processes of the group."""
    os.killpg(launching.process.pid, signal.SIGINT)
    _, errors = launching.ended()
    assert errors.count("Traceback") == 1
    assert all(is_gone(pid) for pid in launching.pids)


def test_nothing_is_left_when_the_launching_process_is_killed(launching: Launching) -> None:
    launching.process.kill()
    launching.ended()
    assert all(is_gone(pid) for pid in launching.pids)


def test_handles_say_what_they_are(broker: ScriptedBroker) -> None:
    with launch_workers(1) as [worker]:
        assert isinstance(worker, WorkerHandle)
        assert repr(worker) == "<worker 0, alive>"
