"""A pool asks the broker, lets its engine start and drain workers, and says what keeps it from that."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.cli.pool import run_pool
from dagorama.client import demand
from dagorama.errors import AccessDenied
from dagorama.pools import memory, options, pool
from dagorama.pools.engine import EngineRefused, Phase
from dagorama.pools.memory import Idleness, Starts
from dagorama.pools.options import PoolOptions
from dagorama.pools.pool import Pool
from dagorama.pools.worker_spec import WorkerSpec
from tests.proof.progress import patience
from tests.support.demand_broker import GONE, DemandBroker, new_broker, served

WAIT = patience(30)  #: seconds after which something that should happen is taken not to


class Cluster:
    """What an engine remembers, for all pools that use it."""

    def __init__(self) -> None:
        self.members: dict[str, Phase] = {}
        self.stays: set[str] = set()
        self.refuses = ""
        self.drained: list[str] = []
        self.places = 100

    def start(self, n: int, worker: WorkerSpec) -> list[str]:
        if self.refuses:
            raise EngineRefused(self.refuses)
        n = min(n, self.places - len(self.members))
        ids = [f"{len(self.members) + number}" for number in range(n)]
        self.members.update(dict.fromkeys(ids, Phase.PENDING))
        self.stays.update(ids if worker.idle is None else ())
        return ids

    def alive(self) -> Mapping[str, Phase]:
        return dict(self.members)

    def drain(self, ids: Sequence[str]) -> None:
        self.drained += ids
        for id in ids:
            self.members.pop(id, None)


class Running:
    """A pool that runs in a thread, what it says, and the broker that a test speaks for."""

    def __init__(self, broker: DemandBroker, pool: Pool, said: SimpleQueue[str]) -> None:
        self.broker, self.pool, self._said = broker, pool, said
        self.heard: list[str] = []

    def needs(self, slots: int, **more: int) -> None:
        self.broker.says.put(pb.DemandReply(slots=slots, **more))

    def until(self, text: str) -> str:
        """Wait for a sentence with this text."""
        while True:
            self.heard.append(self._said.get(timeout=WAIT))
            if text in self.heard[-1]:
                return self.heard[-1]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PACE", 0.01)
    monkeypatch.setattr(pool, "LOOK", 0.05)
    monkeypatch.setattr(pool, "SOON", 0.02)
    monkeypatch.setattr(demand, "LONGEST_PAUSE", 0.1)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def running(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    """Runs pools on the cluster until the end of the test."""
    with contextmanager(_running)(cluster, monkeypatch) as run:
        yield run


def _running(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    broker, threads, pools = new_broker(), list[threading.Thread](), list[Pool]()
    with served(broker) as port:
        monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
        monkeypatch.setenv("DAGORAMA_PORT", f"{port}")

        def run(**chosen: object) -> Running:
            said = SimpleQueue[str]()
            made = Pool(cluster, PoolOptions("p", **chosen), say=lambda text, is_warning: said.put(text))  # type: ignore[arg-type]  # a test's keywords
            thread = threading.Thread(target=made.run)
            thread.start()
            threads.append(thread)
            pools.append(made)
            return Running(broker, made, said)

        yield run
        for made in pools:
            made.stop()
        for thread in threads:
            thread.join()


def test_a_pool_starts_what_is_missing_and_no_more_than_its_most(
    running: Callable[..., Running], cluster: Cluster
) -> None:
    run = running(max=3, concurrency=2)
    run.needs(3)
    assert run.until("started") == "pool p: started 2 workers: 0, 1"
    run.needs(100)
    assert run.until("started") == "pool p: started 1 worker: 2"
    assert "it wants 3 workers, which is its most, and has 0, 3 pending" in run.until("3 pending")
    assert not cluster.stays


def test_workers_that_a_pool_always_has_stay_and_others_leave_when_they_are_idle(
    running: Callable[..., Running], cluster: Cluster
) -> None:
    run = running(max=4, min=1)
    run.needs(3)
    run.until("3 pending")
    assert cluster.stays == {"0"}


def test_the_next_process_of_a_pool_goes_on_with_the_members_of_the_one_before(
    running: Callable[..., Running], cluster: Cluster
) -> None:
    cluster.members = {"old": Phase.RUNNING, "older": Phase.PENDING}
    run = running(max=8)
    run.needs(3)
    assert run.until("started") == "pool p: started 1 worker: 2"
    assert set(cluster.members) == {"old", "older", "2"}


def test_a_pool_that_stops_leaves_its_workers(running: Callable[..., Running], cluster: Cluster) -> None:
    run = running(max=8)
    run.needs(2)
    run.until("2 pending")
    run.pool.stop()
    assert set(cluster.members) == {"0", "1"}
    assert not cluster.drained


def test_without_the_broker_a_pool_keeps_its_workers_and_says_so_once(
    running: Callable[..., Running], cluster: Cluster
) -> None:
    run = running(max=8)
    run.needs(2)
    run.until("2 pending")
    run.broker.says.put(GONE)
    assert "it keeps its workers and waits, because no broker answers at 127.0.0.1:" in run.until("keeps its workers")
    run.needs(3)
    run.until("the broker answers again")
    run.until("3 pending")
    assert sum("keeps its workers" in sentence for sentence in run.heard) == 1


def test_an_engine_that_refuses_is_asked_again_after_a_pause(
    running: Callable[..., Running], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PAUSE", 0.05)
    cluster.refuses = "the cluster is full"
    run = running(max=8)
    run.needs(2)
    said = run.until("could not be started")
    assert said == "pool p: 2 workers could not be started: the cluster is full; it tries again in 0.05 seconds"
    cluster.refuses = ""
    run.until("started 2 workers")


def test_an_engine_without_room_is_told(running: Callable[..., Running], cluster: Cluster) -> None:
    cluster.places = 1
    run = running(max=8)
    run.needs(2)
    run.until("the engine has no room for more workers now")
    cluster.places = 8
    run.until("2 pending")


def test_workers_that_end_at_once_are_not_started_again_and_again(
    running: Callable[..., Running], cluster: Cluster
) -> None:
    run = running(max=8)
    run.needs(1)
    run.until("1 pending")
    cluster.members.clear()
    said = run.until("ended within seconds")
    assert "1 worker ended within seconds of the start: see the output" in said
    assert "it waits for 5 seconds before it starts others" in said


def test_nodes_about_which_the_pool_can_do_nothing_are_told(running: Callable[..., Running]) -> None:
    run = running()
    run.needs(0, unservable=2, missing_key=1)
    assert "its workers have returned 2 nodes: see `dagorama unschedulable`" in run.until("returned")
    assert "signing keys that this process does not hold have signed 1 node" in run.until("keys")


def test_a_pool_whose_token_is_refused_ends_with_the_reason(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = new_broker()
    broker.says.put(grpc.StatusCode.PERMISSION_DENIED)
    with served(broker) as port:
        monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
        monkeypatch.setenv("DAGORAMA_PORT", f"{port}")
        with pytest.raises(AccessDenied):
            Pool(cluster, PoolOptions("p")).run()


def test_at_the_end_of_a_block_the_workers_leave(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, started = new_broker(), threading.Event()
    with served(broker) as port:
        monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
        monkeypatch.setenv("DAGORAMA_PORT", f"{port}")
        say = lambda text, is_warning: started.set() if "started" in text else None  # noqa: E731  # one line
        with Pool(cluster, PoolOptions("p"), say=say):
            broker.says.put(pb.DemandReply(slots=2))
            assert started.wait(WAIT)
    assert sorted(cluster.drained) == ["0", "1"]


# --- idle workers ---------------------------------------------------------------------------------------


def test_idle_workers_above_the_least_are_drained_and_busy_ones_are_not(
    running: Callable[..., Running], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "DRAIN_AFTER_S", 0.05)
    cluster.members = dict.fromkeys(["a", "b", "c", "elsewhere"], Phase.RUNNING)
    run = running(max=8, min=1, drain_idle=True)
    run.broker.workers = [pb.WorkerInfo(name=f"p/{id}", held=int(id == "b")) for id in "abc"]
    run.needs(1, running_slots=1)
    run.until("drains")
    run.until("and has 2")
    assert sorted(cluster.drained) == ["a", "c"]
    assert set(cluster.members) == {"b", "elsewhere"}


def test_a_pool_that_may_not_see_idle_workers_says_so_at_its_start(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = new_broker()
    broker.is_private = True
    with served(broker) as port:
        monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
        monkeypatch.setenv("DAGORAMA_PORT", f"{port}")
        with pytest.raises(AccessDenied):
            Pool(cluster, PoolOptions("p", drain_idle=True)).run()


def test_an_idle_time_begins_again_after_a_node() -> None:
    found, alive = Idleness(PoolOptions("p").worker()), {"a": Phase.RUNNING, "b": Phase.PENDING}

    def idle(held: int, now: float) -> list[float | None]:
        workers = [pb.WorkerInfo(name="p/a", held=held)]
        return [member.idle for member in found.members(alive, workers, now)]

    assert idle(0, 100.0) == [0.0, 0.0]
    assert idle(0, 130.0) == [30.0, 30.0]
    assert idle(1, 140.0) == [None, 40.0]
    assert idle(0, 150.0) == [0.0, 50.0]
    assert [member.idle for member in found.members(alive, None, 160.0)] == [None, None]


# --- the command ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drains", "said"), [(False, "stops; its workers stay until they are idle"), (True, "lets its workers leave")]
)
def test_a_command_that_is_stopped_leaves_its_workers_or_drains_them(
    drains: bool, said: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    broker, start = new_broker(), cluster.start

    def start_and_stop(n: int, worker: WorkerSpec) -> list[str]:
        os.kill(os.getpid(), signal.SIGTERM)
        return start(n, worker)

    monkeypatch.setattr(cluster, "start", start_and_stop)
    broker.says.put(pb.DemandReply(slots=2))
    try:
        with served(broker) as port:
            monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
            monkeypatch.setenv("DAGORAMA_PORT", f"{port}")
            run_pool(cluster, PoolOptions("p"), drain_on_exit=drains)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert said in capsys.readouterr().err
    assert sorted(cluster.drained) == (["0", "1"] if drains else [])


def test_a_command_whose_token_is_refused_exits_with_the_code_of_that(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    broker = new_broker()
    broker.says.put(grpc.StatusCode.PERMISSION_DENIED)
    try:
        with served(broker) as port:
            monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
            monkeypatch.setenv("DAGORAMA_PORT", f"{port}")
            with pytest.raises(SystemExit) as ended:
                run_pool(cluster, PoolOptions("p"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.code == 77
    assert "as the test says" in capsys.readouterr().err


# --- pauses ---------------------------------------------------------------------------------------------


def test_the_pause_grows_while_starts_fail_and_is_short_again_after_one_that_works() -> None:
    found = Starts(idle=60.0)
    assert [found.failed(0.0) for _ in range(8)] == [5, 10, 20, 40, 80, 160, 300, 300]
    assert (found.wait(100.0), found.wait(300.0)) == (200.0, 0.0)
    found.started(["a"], 400.0)
    assert found.ended_early({"a": Phase.RUNNING}, 410.0) == 0
    assert found.ended_early({"a": Phase.RUNNING}, 421.0) == 0
    assert found.failed(430.0) == 5


@pytest.mark.parametrize(("idle", "lived", "early"), [(60.0, 9.0, 1), (60.0, 11.0, 0), (4.0, 1.9, 1), (4.0, 2.1, 0)])
def test_a_worker_that_could_not_have_been_idle_has_ended_early(idle: float, lived: float, early: int) -> None:
    found = Starts(idle)
    found.started(["a"], 0.0)
    assert found.ended_early({"a": Phase.PENDING}, 500.0) == 0
    assert found.ended_early({"a": Phase.RUNNING}, 1_000.0) == 0
    assert found.ended_early({}, 1_000.0 + lived) == early
    assert found.ended_early({}, 2_000.0) == 0


def test_workers_that_are_drained_have_not_ended_early() -> None:
    found = Starts(60.0)
    found.started(["a"], 0.0)
    found.forget(["a"])
    assert found.ended_early({}, 1.0) == 0


# --- options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"name": "a pool"}, "letters, digits"),
        ({"max": 0}, "1 <= max"),
        ({"min": 4, "max": 3}, "min is 4 and max is 3"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"idle": 0.0}, "idle is 0"),
        ({"horizon": float("nan")}, "horizon is nan"),
        ({"share": 1.5}, "share is 1.5"),
    ],
)
def test_options_that_make_no_sense_are_refused(chosen: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PoolOptions(**{"name": "p", **chosen})  # type: ignore[arg-type]  # a test's keywords


def test_workers_get_the_flags_of_the_pool_and_the_access_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "broker.example.org")
    monkeypatch.delenv("DAGORAMA_PORT", raising=False)
    monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", "secret")
    monkeypatch.setenv("DAGORAMA_STORE", "postgresql://of-a-broker")
    monkeypatch.setenv("DAGORAMA_VALUES_PATIENCE", "5")
    made = PoolOptions("p", include_queues=("a",), tolerations=("FPGA",), imports=("app",)).with_gpu(True)
    worker = made.worker(lifetime=600)
    assert " ".join(worker.flags()) == (
        "--concurrency 1 --grace 25 --include-queue a --toleration GPU --toleration FPGA --import app "
        "--until idle --idle 60 --lifetime 600"
    )
    kept = {name: worker.environment[name] for name in ("DAGORAMA_HOST", "DAGORAMA_PORT", "DAGORAMA_AUTH_TOKEN")}
    assert kept == {
        "DAGORAMA_HOST": "broker.example.org", "DAGORAMA_PORT": "50051", "DAGORAMA_AUTH_TOKEN": "secret"
    }  # fmt: skip
    assert worker.environment["DAGORAMA_VALUES_PATIENCE"] == "5"
    assert "DAGORAMA_STORE" not in worker.environment
    assert "secret" not in repr(worker)
