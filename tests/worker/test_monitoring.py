"""A worker tells probes whether it is alive and ready."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http import fetch, url_in
from tests.support.scripted_broker import ScriptedBroker, WorkerProcess, worker_process
from tests.support.worker_command import await_that
from tests.support.worker_grants import call
from tests.worker.test_supervisor import Fifo

#: Its tests start processes.
pytestmark = pytest.mark.slow


@pytest.fixture
def worker(broker: ScriptedBroker) -> Iterator[WorkerProcess]:
    with worker_process(broker, "--health-port", "0") as process:
        yield process


@pytest.fixture
def url(worker: WorkerProcess) -> str:
    return url_in(worker.line())


def test_a_worker_is_ready_when_a_broker_has_welcomed_it(broker: ScriptedBroker, url: str) -> None:
    conversation = broker.next_conversation()
    reply = fetch(f"{url}/readyz")
    assert (reply.status, reply.text) == (
        503, f"not ready: it is not connected to the broker at 127.0.0.1:{broker.port}\n",
    )  # fmt: skip
    conversation.welcome()
    await_that(lambda: fetch(f"{url}/readyz")[:2] == (200, "ready\n"))
    assert fetch(f"{url}/livez")[:2] == (200, "live\n")
    broker.stop()
    await_that(lambda: fetch(f"{url}/readyz").status == 503)
    assert fetch(f"{url}/livez").status == 200


def test_a_worker_that_leaves_is_not_ready(
    broker: ScriptedBroker, worker: WorkerProcess, url: str, tmp_path: Path
) -> None:
    fifo, spoken = Fifo(tmp_path / "fifo"), broker.greeted()
    spoken.grant(call("wait_for", fifo.path))
    fifo.wait_until_read()
    assert fetch(f"{url}/readyz").status == 200
    worker.signal(signal.SIGTERM)
    spoken.listen(lambda: spoken.draining)
    assert fetch(f"{url}/readyz")[:2] == (503, "not ready: the worker is leaving\n")
    fifo.let_go()


def test_a_port_in_use_is_one_sentence(broker: ScriptedBroker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with worker_process(broker, "--health-port", f"{port}") as worker:
            code, said = worker.ended()
    assert code == 2
    assert said.startswith(f"worker: cannot serve HTTP on 127.0.0.1:{port}: ")
    assert said.endswith("; choose another port with --health-port\n")
