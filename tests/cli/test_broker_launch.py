"""`launch_broker`: a broker of its own process, there for the block, gone after it, whatever happened."""

import inspect
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dagorama_broker import launch
from dagorama_broker.launch import BrokerNotStarted, launch_broker
from tests.support.processes import SECONDS, has_ended, is_serving, is_there, put_value, status

#: Its tests start processes and wait for them, ten seconds and more together.
pytestmark = pytest.mark.slow

ADDRESS = ("DAGORAMA_HOST", "DAGORAMA_PORT")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [name for name in os.environ if name.startswith("DAGORAMA_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def environment() -> list[str | None]:
    return [os.environ.get(variable) for variable in ADDRESS]


@contextmanager
def script(text: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A program of its own that launches brokers; killed at the block's end."""
    command = [sys.executable, "-c", text, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# --- there for the block -----------------------------------------------------------------------------------------


def test_it_serves_when_the_block_starts() -> None:
    with launch_broker(port=0) as broker:
        assert is_serving(broker.address)


def test_the_default_port_is_50051() -> None:
    assert inspect.signature(launch_broker).parameters["port"].default == 50051


def test_port_0_picks_a_free_one_and_brokers_nest() -> None:
    with launch_broker(port=0) as outer, launch_broker(port=0) as inner:
        assert outer.port not in (0, inner.port)
        assert is_serving(outer.address)
        assert is_serving(inner.address)


def test_it_asks_no_other_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not `lsof` for who has a port, nor a shell: there is none to be found."""
    monkeypatch.setenv("PATH", "")
    with launch_broker(port=0) as broker:
        assert is_serving(broker.address)
        with pytest.raises(BrokerNotStarted, match="cannot listen"), launch_broker(port=broker.port):
            pass


def test_clients_of_the_block_find_it_and_what_was_set_before_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", "7")
    with launch_broker(port=0) as outer:
        assert environment() == ["127.0.0.1", f"{outer.port}"]
        with launch_broker(port=0) as inner:
            assert environment() == ["127.0.0.1", f"{inner.port}"]
        assert environment() == ["127.0.0.1", f"{outer.port}"]
    assert environment() == [None, "7"]


def test_a_block_that_raises_leaves_neither_broker_nor_variables() -> None:
    pids: list[int | None] = []

    def block() -> None:
        with launch_broker(port=0) as broker:
            pids.append(broker.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()
    assert [is_there(pid) for pid in pids if pid] == [False]
    assert environment() == [None, None]


def test_variables_may_be_given_to_the_broker_alone() -> None:
    with pytest.raises(BrokerNotStarted, match="DAGORAMA_LEASE is 'long'"):
        launch_broker(port=0, environment={"DAGORAMA_LEASE": "long"}).__enter__()
    assert "DAGORAMA_LEASE" not in os.environ


def test_it_listens_where_it_is_told_and_clients_find_it_on_this_machine() -> None:
    with launch_broker(port=0, host="0.0.0.0", environment={"DAGORAMA_INSECURE": "1"}) as broker:
        assert environment() == ["127.0.0.1", f"{broker.port}"]
        assert is_serving(broker.address)
        assert is_serving(f"127.0.0.2:{broker.port}")


def test_what_its_launcher_presents_to_a_broker_is_not_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", "dgt_marked")
    monkeypatch.setenv("DAGORAMA_AUTH_TOKEN_FILE", "/marked")
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", "marked")
    with launch_broker(port=0) as broker:
        assert b"marked" not in Path(f"/proc/{broker.pid}/environ").read_bytes()


def test_it_does_not_get_the_ctrl_c_that_is_meant_for_the_script() -> None:
    with launch_broker(port=0) as broker:
        assert broker.pid is not None
        assert os.getpgid(broker.pid) != os.getpgid(0)


# --- its store -----------------------------------------------------------------------------------------------------


def test_without_a_store_it_starts_empty_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DAGORAMA_STORE", f"sqlite:///{tmp_path}/named.sqlite3")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with launch_broker(port=0) as broker:
        assert broker.store == "memory://"
        put_value(broker.address, b"a large value")
        broker.kill()
        broker.start()
        put_value(broker.address, b"a large value")
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_killed_and_started_again_it_goes_on_at_the_same_port_and_store(tmp_path: Path) -> None:
    with launch_broker(port=0, store=f"sqlite:///{tmp_path}/broker.sqlite3") as broker:
        port, first = broker.port, broker.pid
        for epoch in (2, 3):
            broker.kill()
            assert broker.pid is None
            broker.start()
            assert broker.port == port
            assert broker.pid not in (None, first)
            assert status(broker.address).epoch == epoch
        broker.restart()
        assert status(broker.address).epoch == 4


# --- why it could not start ------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_said_and_nothing_is_set() -> None:
    with launch_broker(port=0) as broker:
        before = environment()
        with (
            pytest.raises(BrokerNotStarted, match=rf"cannot listen on 127\.0\.0\.1:{broker.port}"),
            launch_broker(port=broker.port),
        ):
            pass
        assert environment() == before


def test_a_store_that_is_in_use_is_said_with_who_has_it(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/broker.sqlite3"
    with (
        launch_broker(port=0, store=store) as broker,
        pytest.raises(BrokerNotStarted, match=rf"in use by another broker \(pid {broker.pid}\)"),
        launch_broker(port=0, store=store),
    ):
        pass


def test_a_store_that_cannot_be_is_said() -> None:
    with (
        pytest.raises(BrokerNotStarted, match="store 'mysql://' is not one of"),
        launch_broker(port=0, store="mysql://"),
    ):
        pass


def test_a_broker_that_cannot_say_why_is_told_by_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "dagorama_broker.py").write_text("raise SystemExit(3)")
    environment = {"PYTHONPATH": str(tmp_path)}
    with pytest.raises(BrokerNotStarted, match="exited with code 3"), launch_broker(port=0, environment=environment):
        pass


# --- gone ------------------------------------------------------------------------------------------------------------

LAUNCH = """
import os, signal, sys, time
from dagorama_broker.launch import launch_broker
with launch_broker(port=0) as broker:
    {block}
"""


def test_it_ends_when_its_launcher_is_killed() -> None:
    with script(LAUNCH.format(block="print(broker.pid, flush=True); signal.pause()")) as process:
        pid = int(first_line(process))
        assert is_there(pid)
    assert has_ended(pid)


def test_it_takes_its_temporary_files_along_then(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with script(LAUNCH.format(block="print(broker.pid, broker.address, flush=True); signal.pause()")) as process:
        pid, address = first_line(process).split()
        put_value(address, b"a large value")
        assert list(tmp_path.iterdir())
    assert has_ended(int(pid))
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_that_lives_on_does_not_keep_it() -> None:
    block = "child = os.fork() or signal.pause(); print(broker.pid, child, flush=True); signal.pause()"
    with script(LAUNCH.format(block=block)) as process:
        pid, child = map(int, first_line(process).split())
    try:
        assert has_ended(pid)
        assert is_there(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_leaves_the_block_does_not_end_it() -> None:
    block = "os.fork() or sys.exit(); os.wait(); print(broker.address, flush=True); signal.pause()"
    with script(LAUNCH.format(block=block)) as process:
        assert is_serving(first_line(process))


def test_a_broker_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "STOP_SECONDS", 0.01)
    with launch_broker(port=0) as broker:
        pid = broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    assert not is_there(pid)


def test_a_block_in_which_the_broker_died_ends_all_the_same() -> None:
    with launch_broker(port=0) as broker:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        assert has_ended(broker.pid)
    assert broker.pid is None


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_it_works_without_the_usual_streams(tmp_path: Path, closed: str) -> None:
    block = "print(broker.pid, file=open(sys.argv[1], 'w'))"
    command = ["sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-c", LAUNCH.format(block=block)]
    subprocess.run([*command, tmp_path / "pid"], check=True, timeout=SECONDS)
    assert not is_there(int((tmp_path / "pid").read_text()))
