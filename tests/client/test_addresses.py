"""A broker at one of several addresses: which one is used, what is said of them, and what follows a takeover."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from dagorama import DAGDefinition, dagorama, resolve
from dagorama.cli.credentials import record_of
from dagorama.client.addresses import address, target
from dagorama.client.channel import check
from dagorama.client.connection import Connection
from dagorama.client.reconnect import PATIENCE
from dagorama.errors import BrokerUnavailable, SettingsError
from dagorama.settings import Settings, broker_wait
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.certificates import Authority
from tests.support.worker_command import WAIT
from tests.support.workers import launch_workers

NAME = "broker.test"
UNKNOWN = "unknown.invalid"  #: RFC 6761: no resolver may know it


@pytest.fixture(scope="module")
def broker() -> Iterator[LaunchedBroker]:
    with launch_broker(0) as broker:
        yield broker


@contextmanager
def broker_at(host: str, port: int, store: str = "memory://") -> Iterator[LaunchedBroker]:
    """Run a broker at this address; the environment still names the others."""
    broker = LaunchedBroker(port, store, "WARNING", {}, host)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


# --- which one is used ---------------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", ["127.0.0.2,127.0.0.1", "::1,127.0.0.1", f"{UNKNOWN},localhost", "a..b,127.0.0.1"])
def test_the_first_host_that_accepts_a_connection_is_used(broker: LaunchedBroker, hosts: str) -> None:
    assert Connection(Settings(hosts, broker.port)).get_status().epoch == 1


def test_a_host_that_cannot_be_looked_up_is_left_out_with_a_warning(
    broker: LaunchedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "dagorama"):
        assert target(Settings(f"{UNKNOWN},127.0.0.1", 5)) == "ipv4:127.0.0.1:5"
    assert f"cannot look up {UNKNOWN} (" in caplog.text
    assert "trying only the other hosts" in caplog.text


def test_hosts_of_which_none_can_be_looked_up_are_an_error_at_once() -> None:
    said = (
        rf"no broker answers at {UNKNOWN}:5, a\.\.b:5: none of the hosts can be looked up: {UNKNOWN} \(.*DAGORAMA_HOST"
    )
    with pytest.raises(BrokerUnavailable, match=said):
        Connection(Settings(f"{UNKNOWN},a..b", 5))


def test_a_worker_says_that_no_host_can_be_looked_up_and_ends() -> None:
    command = [sys.executable, "-m", "dagorama.worker", "--host", f"{UNKNOWN},a..b"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 1
    sentence, address = done.stderr.splitlines()[-2:]
    assert "none of the hosts can be looked up" in sentence
    assert address == "See docs/reference/errors.md#brokerunavailable"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("hosts", "written"),
    [
        ("127.0.0.2,127.0.0.1,127.0.0.2", "ipv4:127.0.0.2:5,127.0.0.1:5"),
        ("127.0.0.1,::1", "ipv6:[::ffff:127.0.0.1]:5,[::1]:5"),
        ("127.0.0.1", "127.0.0.1:5"),
    ],
)
def test_all_addresses_of_a_target_are_of_one_family(hosts: str, written: str) -> None:
    assert target(Settings(hosts, 5)) == written


def test_an_address_of_an_interface_keeps_the_interface() -> None:
    assert target(Settings("fe80::1%1,::1", 5)) == "ipv6:[fe80::1%251]:5,[::1]:5"


def test_several_brokers_with_tls_have_one_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.pair(NAME)
    with launch_broker(0, environment={"DAGORAMA_BROKER_TLS_CERT": cert, "DAGORAMA_BROKER_TLS_KEY": key}) as secure:
        settings = Settings("127.0.0.2,127.0.0.1", secure.port, tls_ca=str(authority.file), tls_name=NAME)
        assert Connection(settings).get_status().epoch == 1


def test_a_token_goes_to_several_addresses_in_the_clear_if_all_are_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(record_of("dgt_client", "client"))
    with launch_broker(0, environment={"DAGORAMA_TOKENS_FILE": str(tokens)}) as guarded:
        link = Connection(Settings("127.0.0.2,localhost", guarded.port, auth_token="dgt_client"))
        assert link.get_status().epoch == 1
    with pytest.raises(SettingsError, match=r"would be sent to broker\.example in clear text"):
        check(Settings("127.0.0.1,broker.example", auth_token="dgt_client"))


# --- what is said --------------------------------------------------------------------------------------


def test_people_read_the_hosts_as_they_were_given(broker: LaunchedBroker) -> None:
    settings = Settings("127.0.0.2,::1,localhost", broker.port)
    assert address(settings) == f"127.0.0.2:{broker.port}, [::1]:{broker.port}, localhost:{broker.port}"
    assert Connection(settings).address == address(settings)


def test_the_command_that_finds_no_broker_names_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_BROKER_WAIT", "0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "dagorama", "status", "--host", "127.0.0.2,127.0.0.1", "--port", f"{port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 69
    assert done.stderr.startswith(f"dagorama: no broker answers at 127.0.0.2:{port}, 127.0.0.1:{port} (")


# --- takeovers -----------------------------------------------------------------------------------------


def test_several_addresses_are_tried_for_as_long_as_a_broker_that_has_answered(broker: LaunchedBroker) -> None:
    assert Connection(Settings("127.0.0.1", broker.port)).patience == PATIENCE
    assert Connection(Settings("127.0.0.2,127.0.0.1", broker.port)).patience == broker_wait()


class Held(DAGDefinition):
    """A node that says that it runs, through one pipe, and ends when another one is opened."""

    @dagorama().syncfn
    def entrypoint(self, folder: str) -> int:
        pipes = Path(folder)
        with (pipes / "runs").open("a") as runs:
            runs.write("once")
        (pipes / "started").write_text("started")
        (pipes / "go").read_text()
        return self.after(1)

    @dagorama().syncfn
    def after(self, number: int) -> int:
        return number + 1


@pytest.mark.slow
def test_a_client_that_waits_and_a_worker_with_a_node_move_to_the_broker_that_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:///{tmp_path}/store"
    for pipe in ("started", "go"):
        os.mkfifo(tmp_path / pipe)
    with launch_broker(0, store) as first, ThreadPoolExecutor(1) as threads:
        monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1,127.0.0.2")
        with launch_workers(1):
            instance, promise = Held()(str(tmp_path))
            waiting = threads.submit(resolve, instance, promise, timeout=WAIT)
            (tmp_path / "started").read_text()
            first.kill()
            with broker_at("127.0.0.2", first.port, store):
                (tmp_path / "go").write_text("")
                assert waiting.result(WAIT) == 2
    assert (tmp_path / "runs").read_text() == "once"


@pytest.mark.slow
def test_a_call_leaves_a_broker_that_has_fallen_silent(broker: LaunchedBroker) -> None:
    link = Connection(Settings("127.0.0.1,127.0.0.2", broker.port))
    assert link.get_status().epoch == 1
    with broker_at("127.0.0.2", broker.port) as other:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            sent = link.put_value(b"for the one that answers")
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        assert Connection(Settings(other.host, other.port)).get_value(sent) == b"for the one that answers"
