"""Two brokers on one database: one leads, the other waits and takes over, and clients and workers find it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO
from urllib.request import urlopen

import grpc
import pytest

from dagorama import DAGDefinition, dagorama, resolve, send, wait_for
from dagorama_broker.launch import environment_with
from tests.support.broker_fixtures import server_or_skip
from tests.support.brokers import BROKER, IMPORTS
from tests.support.forks import fork_server
from tests.support.keda import ExternalScaler, Trigger
from tests.support.postgres_server import PostgresServer, new_schema
from tests.support.worker_command import await_that
from tests.support.workers import launch_workers

#: Hosts of the two brokers, which have the same port.
HOSTS = ("127.0.0.1", "127.0.0.2")
PATIENCE = 60.0


class Doubling(DAGDefinition):
    def entrypoint(self, count: int) -> list[int]:
        return self.gather([self.double(number) for number in range(count)])

    @dagorama().syncfn
    def double(self, number: int) -> int:
        return 2 * number

    @dagorama().syncfn
    def gather(self, numbers: list[int]) -> list[int]:
        return numbers


class Approved(DAGDefinition):
    def entrypoint(self) -> int:
        return self.total(wait_for("first", int), wait_for("second", int))

    @dagorama
    def total(self, first: int, second: int) -> int:
        return first + second


class BrokerProcess:
    """A broker whose log is read line by line."""

    def __init__(self, host: str, port: int, store: str, values: Path, lease: float, health: bool) -> None:
        options = ["--host", host, "--port", f"{port}", "--store", store, "--values", f"file://{values}"]
        options += ["--health-port", "0"] if health else []
        variables = {"DAGORAMA_LEADER_LEASE": f"{lease}", "DAGORAMA_STORE_PATIENCE": "3600"}
        log, theirs = os.pipe()
        with open(theirs, "wb") as end, open(os.devnull, "wb") as nothing:
            outputs = nothing.fileno(), end.fileno()
            self.process = fork_server(IMPORTS).fork(BROKER, ["serve", *options], {**os.environ, **variables}, outputs)
        self._log: IO[str] = open(log)  # noqa: SIM115  # closed by close()
        self.said: list[str] = []

    def until(self, text: str) -> str:
        """Wait until the broker logs a line with this text, and return the line."""
        for line in self._log:
            self.said.append(line)
            if text in line:
                return line
        pytest.fail(f"it ended without {text!r}: {self.said}")

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        self.process.send(number)
        return self.process.wait()

    def close(self) -> None:
        self.process.send(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with server_or_skip() as server:
        yield server


class Pair:
    """Makes brokers on one database, and sets the variables with which clients find them."""

    def __init__(self, stack: ExitStack, store: str, values: Path) -> None:
        with socket.create_server((HOSTS[0], 0)) as probe:
            self.port = probe.getsockname()[1]
        self._stack, self._store, self._values = stack, store, values
        variables = {"DAGORAMA_HOST": ",".join(HOSTS), "DAGORAMA_PORT": f"{self.port}"}
        stack.enter_context(environment_with(**variables))

    def start(self, host: str, lease: float = 6.0, health: bool = False) -> BrokerProcess:
        broker = BrokerProcess(host, self.port, self._store, self._values, lease, health)
        self._stack.callback(broker.close)
        return broker


@pytest.fixture
def pair(server: PostgresServer, tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack, stack.enter_context(new_schema(server.url)), tmp_path / "values")


def test_a_killed_leader_is_replaced_and_the_work_goes_on(pair: Pair) -> None:
    leader = pair.start(HOSTS[0])
    leader.until("serving on")
    standby = pair.start(HOSTS[1])
    standby.until("waiting as a standby")
    with launch_workers(1):
        earlier, first = Doubling()(3)
        instance, promise = Doubling()(300)
        assert leader.end(signal.SIGKILL) == -signal.SIGKILL
        assert resolve(instance, promise, timeout=PATIENCE) == [2 * number for number in range(300)]
        standby.until("serving on")
        assert resolve(earlier, first, timeout=PATIENCE) == [0, 2, 4]
        pair.start(HOSTS[0]).until("waiting as a standby")


def test_the_broker_that_takes_over_keeps_waits_and_signals(pair: Pair) -> None:
    leader = pair.start(HOSTS[0])
    leader.until("serving on")
    pair.start(HOSTS[1]).until("waiting as a standby")
    with launch_workers(1):
        instance, promise = Approved()()
        assert send(instance, "first", 1, key="a")
        assert leader.end(signal.SIGKILL) == -signal.SIGKILL
        assert not send(instance, "first", 1, key="a")
        assert send(instance, "second", 2)
        assert resolve(instance, promise, timeout=PATIENCE) == 3


def test_a_leader_that_leaves_is_replaced_and_a_standby_may_leave(pair: Pair) -> None:
    leader = pair.start(HOSTS[0])
    leader.until("serving on")
    standbys = [pair.start(HOSTS[1]) for _ in range(2)]
    for standby in standbys:
        standby.until("waiting as a standby")
    assert standbys[0].end(signal.SIGTERM) == 0
    with keda(pair) as answers:
        await_that(answers)
        assert leader.end(signal.SIGTERM) == 0
        standbys[1].until("serving on")
        await_that(answers)


@contextmanager
def keda(pair: Pair) -> Iterator[Callable[[], bool]]:
    """Whether KEDA gets an answer. It goes to all addresses in turn that accept a connection: to the leader's alone."""
    addresses = ",".join(f"{host}:{pair.port}" for host in HOSTS)
    with grpc.insecure_channel(f"ipv4:{addresses}", [("grpc.lb_policy_name", "round_robin")]) as channel:
        scaler = ExternalScaler(channel, Trigger({}, {}))

        def answers() -> bool:
            try:
                return not scaler.is_active().result
            except grpc.RpcError:
                return False

        yield answers


def test_a_leader_that_stood_still_leaves_when_it_wakes_up(pair: Pair) -> None:
    leader = pair.start(HOSTS[0], lease=2.0)
    leader.until("serving on")
    standby = pair.start(HOSTS[1], lease=2.0)
    standby.until("waiting as a standby")
    leader.process.send(signal.SIGSTOP)
    standby.until("serving on")
    assert leader.end(signal.SIGCONT) == 3
    with launch_workers(1):
        instance, promise = Doubling()(3)
        assert resolve(instance, promise, timeout=PATIENCE) == [0, 2, 4]


def test_a_restart_of_the_database_is_waited_for(pair: Pair, server: PostgresServer) -> None:
    leader = pair.start(HOSTS[0])
    leader.until("serving on")
    with launch_workers(1):
        instance, promise = Doubling()(300)
        server.stop()
        server.start()
        assert resolve(instance, promise, timeout=PATIENCE) == [2 * number for number in range(300)]
    assert leader.end(signal.SIGTERM) == 0


def test_a_standby_is_ready_and_does_not_listen(pair: Pair) -> None:
    pair.start(HOSTS[0]).until("serving on")
    standby = pair.start(HOSTS[1], health=True)
    url = standby.until("HTTP at").split("HTTP at ")[1].split(": /")[0]
    standby.until("waiting as a standby")
    with urlopen(f"{url}/readyz") as answer:
        assert answer.read().decode().strip() == "ready"
    with pytest.raises(ConnectionRefusedError), socket.create_connection((HOSTS[1], pair.port)):
        pass


def test_a_broker_whose_database_is_away_leaves_when_it_is_told_to(pair: Pair, server: PostgresServer) -> None:
    leader = pair.start(HOSTS[0], lease=1.0)
    leader.until("serving on")
    Doubling()(1)
    server.stop()
    try:
        leader.until("does not answer")
        assert leader.end(signal.SIGTERM) in (0, 1)  # 1 if it had something to commit
    finally:
        server.start()
