"""A worker tells probes whether it is alive and ready."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from dagorama.values.codec import encode
from dagorama.values.out_of_band import Buffer
from tests.support.fetching import fetch, url_in
from tests.support.fifo import Fifo
from tests.support.scrape import Scrape
from tests.support.scripted_broker import ScriptedBroker, WorkerProcess, environment_of, worker_process
from tests.support.worker_command import WAIT, await_that
from tests.support.worker_grants import Wanted, call

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
    assert said == (
        f"worker: cannot serve HTTP on 127.0.0.1:{port}: Address already in use;"
        " choose another port with --health-port or --metrics-port\n"
    )


# --- metrics --------------------------------------------------------------------------------------------


@pytest.fixture
def measured(broker: ScriptedBroker) -> Iterator[tuple[WorkerProcess, str]]:
    with worker_process(broker, "--metrics-port", "0", "--concurrency", "2") as process:
        yield process, url_in(process.line())


def test_a_worker_counts_the_runs_of_its_children_by_function(
    broker: ScriptedBroker, measured: tuple[WorkerProcess, str]
) -> None:
    _, url = measured
    spoken = broker.greeted()
    spoken.grant(call("echo", 1), call("echo", 2), call("fail", "no"))
    spoken.grant(call("echo", 3), slot=1)
    answered = 0
    while answered < 4:
        results = spoken.results()
        answered += len(results.attempt) + len(results.failures)
    now = Scrape(url)
    assert now.value("dagorama_worker_run_seconds_count") == 4
    counts = {
        sample.labels["function"].rpartition(".")[2]: sample.value
        for sample in now.families["dagorama_worker_run_seconds"].samples
        if sample.name.endswith("_count")
    }
    assert counts == {"echo": 3, "fail": 1}


def test_a_worker_shows_its_slots_and_what_they_hold(
    broker: ScriptedBroker, measured: tuple[WorkerProcess, str], tmp_path: Path
) -> None:
    _, url = measured
    fifo, spoken = Fifo(tmp_path / "fifo"), broker.greeted()
    spoken.grant(call("echo", 1), slot=0)
    spoken.value()
    spoken.grant(call("wait_for", fifo.path), call("echo", 2), slot=1)
    fifo.wait_until_read()
    now = Scrape(url)
    slots = {state: now.value("dagorama_worker_slots", state=state) for state in ("idle", "busy", "closed")}
    assert slots == {"idle": 1, "busy": 1, "closed": 0}
    assert now.value("dagorama_worker_held_nodes") == 2
    assert now.value("dagorama_worker_connected") == 1
    fifo.let_go()


def test_a_worker_counts_processes_that_die_and_connections(
    broker: ScriptedBroker, measured: tuple[WorkerProcess, str]
) -> None:
    _, url = measured
    spoken = broker.greeted()
    spoken.grant(call("kill_itself", signal.SIGSEGV))
    spoken.death()
    spoken.end()
    spoken = broker.greeted()
    spoken.grant(call("exit_at_once", 7), slot=1)
    spoken.death()
    now = Scrape(url)
    assert now.value("dagorama_worker_process_deaths_total", cause="SIGSEGV") == 1
    assert now.value("dagorama_worker_process_deaths_total", cause="exit") == 1
    assert now.value("dagorama_worker_reconnects_total") == 1


def test_a_worker_counts_large_values_that_it_fetches(
    broker: ScriptedBroker, measured: tuple[WorkerProcess, str]
) -> None:
    _, url = measured
    spoken, content = broker.greeted(), bytes(3_000_000)

    def put(data: Buffer) -> bytes:
        digest = sha256(data).digest()
        broker.large[digest] = bytes(data)
        return digest

    argument = encode(((content,), {}), large_from=1000, put_large=put).envelope
    spoken.grant(Wanted("length", arguments=argument), large=list(broker.large))
    assert spoken.value() == len(content)
    now = Scrape(url)
    assert now.value("dagorama_worker_values_fetched_total") == 1
    assert (now.value("dagorama_worker_value_bytes_fetched_total") or 0) >= len(content)


def test_without_the_extra_one_sentence_says_how_to_install_it(broker: ScriptedBroker, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from importlib import util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name: None if name == 'prometheus_client' else find(name)\n"
    )
    environment = environment_of(broker)
    environment["PYTHONPATH"] = f"{tmp_path}:{environment['PYTHONPATH']}"
    command = [sys.executable, "-m", "dagorama.worker", "--metrics-port", "0"]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=WAIT)
    assert done.returncode == 2
    assert done.stderr == "worker: --metrics-port needs a package: pip install 'dagorama[metrics]'\n"
