"""`dagorama dev`: broker, workers and page for a folder, which come back when they die, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from socket import create_server

import httpx
import pytest

from tests.support.dev_session import FLOW, command, environment, refused, running
from tests.support.worker_command import await_that

pytestmark = pytest.mark.slow

BROKEN = "\ndef broken(:\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flow.py").write_text(FLOW)
    return tmp_path


def test_it_says_where_everything_is_and_programs_of_the_folder_find_the_broker(folder: Path) -> None:
    (below := folder / "below").mkdir()
    with running(folder, "flow.py") as dev:
        address = dev.summary["broker"].partition(",")[0]
        assert dev.summary == {
            "broker": f"{address}, data in {folder}/.dagorama",
            "worker": "2 processes for flow.py, restarted when a Python file changes",
            "dashboard": dev.summary["dashboard"],
        }
        assert dev.run("flow:Shapes", 4) == "14"
        dev.await_said("worker    | measured 3")
        assert httpx.get(dev.summary["dashboard"]).status_code == 200
        shown = command(below, "config", "show", "--origin", home=folder).stdout.splitlines()
        host, port = address.split(":")
        assert [line.split()[:3] for line in shown[1:3]] == [
            ["DAGORAMA_HOST", host, "dev"], ["DAGORAMA_PORT", port, "dev"]
        ]  # fmt: skip
    assert (folder / ".dagorama" / ".gitignore").read_text() == "*\n"


def test_a_killed_broker_comes_back_with_its_work_and_a_killed_worker_too(folder: Path) -> None:
    gate = folder / "gate"
    with running(folder, "flow.py") as dev:
        id = dev.run("flow:Gated", gate, "--detach")
        os.kill(broker := dev.broker, signal.SIGKILL)
        dev.await_said("the broker was killed by SIGKILL; it restarts")
        await_that(lambda: dev.broker not in (0, broker))
        gate.touch()
        assert command(folder, "watch", id).returncode == 0
        os.kill(dev.worker, signal.SIGKILL)
        dev.await_said("the worker was killed by SIGKILL; it restarts")
        assert dev.run("flow:Shapes", 3) == "5"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_processes(folder: Path, number: signal.Signals) -> None:
    with running(folder, "flow.py") as dev:
        dev.run("flow:Gated", folder / "gate", "--detach")
        assert dev.end(number) == 0
    assert (folder / ".dagorama" / "address").read_text() == ""
    assert "Traceback" not in dev.said


def test_a_second_signal_ends_them_at_once(folder: Path) -> None:
    with running(folder, "flow.py") as dev:
        dev.run("flow:Gated", folder / "gate", "--detach")
        dev.await_said("joined")
        assert dev.end(signal.SIGINT, signal.SIGINT) == 0
    assert "Traceback" not in dev.said


def test_with_nohup_it_goes_on_when_the_terminal_is_closed(folder: Path) -> None:
    with running(folder, "flow.py", through=["nohup"]) as dev:
        dev.process.send_signal(signal.SIGHUP)
        assert dev.run("flow:Shapes", 3) == "5"


def test_all_processes_end_if_it_is_killed_and_the_next_one_starts(folder: Path) -> None:
    with running(folder, "flow.py") as killed:
        assert killed.end(signal.SIGKILL) == -signal.SIGKILL
    assert command(folder, "config", "show", "--origin").stdout.split("\n")[1].split()[2] == "default"
    with running(folder, "flow.py") as dev:
        assert dev.run("flow:Shapes", 3) == "5"


def test_an_error_in_the_code_is_shown_and_its_repair_is_waited_for(folder: Path) -> None:
    (folder / "flow.py").write_text(FLOW + BROKEN)
    with running(folder, "flow.py") as dev:
        dev.await_said("worker: --import flow: it cannot be imported (SyntaxError: invalid syntax (flow.py, line ")
        dev.await_said("the next change starts it")
        (folder / "flow.py").write_text(FLOW)
        assert dev.run("flow:Shapes", 3) == "5"
        (folder / "flow.py").write_text(FLOW.replace("sum(areas)", "-sum(areas)"))
        assert dev.run("flow:Shapes", 3) == "-5"


def test_misuses_are_shown_at_the_start_and_after_a_change_and_hold_nothing_up(folder: Path) -> None:
    call = "self.total([self.measure(i) for i in range(count)])"
    (folder / "flow.py").write_text(FLOW.replace(call, f"{call} if count else self.total([]) + 1"))
    with running(folder, "flow.py") as dev:
        dev.await_said("worker    | flow.py:9:")
        assert "DAG002 the operator `+`" in dev.said
        assert dev.run("flow:Shapes", 3) == "5"
        (folder / "more.py").write_text(FLOW.replace(call, f"not {call}"))
        dev.await_said("worker    | more.py:9:16: DAG001 `not`")


def test_misuses_are_shown_without_workers_too(folder: Path) -> None:
    (folder / "flow.py").write_text(FLOW.replace("self.total([", "1 + self.total(["))
    with running(folder, "--workers", "0") as dev:
        dev.await_said("check     | flow.py:9:16: DAG002")


def test_a_node_that_writes_a_file_does_not_restart_the_worker(folder: Path) -> None:
    with running(folder, "flow.py") as dev:
        id = dev.run("flow:Gated", "gate", "--detach")
        dev.await_said("joined")
        (folder / "plain.txt").touch()
        (folder / "gate").touch()
        assert command(folder, "watch", id).returncode == 0
        (folder / "more.py").touch()
        dev.await_said("more.py changed; restarting")
        assert dev.said.count("; restarting") == 1


@pytest.mark.early
def test_data_are_kept_unless_they_should_be_fresh(folder: Path) -> None:
    def instances() -> list[str]:
        return command(folder, "list", "-o", "name").stdout.split()

    with running(folder) as dev:
        dev.run("flow:Shapes", 3)
    with running(folder, "--workers", "0"):
        assert len(instances()) == 1
        said = refused(folder)
        assert (said.returncode, "dagorama dev is already running for" in said.stderr) == (1, True)
    with running(folder, "--fresh", "--store", f"{folder}/elsewhere", "--workers", "0") as dev:
        assert dev.summary["worker"] == "none: start one with `worker` in this folder"
        assert instances() == []
    with running(folder, "--workers", "0"):
        assert len(instances()) == 1
    with running(folder, "--fresh", "--workers", "0"):
        assert instances() == []


def test_a_port_in_use_is_refused_if_it_was_asked_for(folder: Path) -> None:
    with create_server(("127.0.0.1", 0)) as other:
        said = refused(folder, "--port", str(other.getsockname()[1]))
    assert said.returncode == 1
    assert "is in use: choose another --port, or 0 for any free one" in said.stderr


def test_a_setting_that_is_wrong_ends_it_with_the_sentence_of_the_process(folder: Path) -> None:
    where = {**environment(folder), "DAGORAMA_LEASE": "long"}
    done = [sys.executable, "-m", "dagorama", "dev", "--port", "0", "--http-port", "0"]
    ended = subprocess.run(done, cwd=folder, env=where, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "DAGORAMA_LEASE is 'long'" in ended.stderr
    assert "this ends dagorama dev" in ended.stderr


def test_unread_output_does_not_end_a_process(folder: Path) -> None:
    with running(folder, "flow.py") as dev:
        assert dev.process.stdout is not None
        dev.process.stdout.close()
        assert dev.run("flow:Shapes", 3) == "5"
        assert dev.end(signal.SIGTERM) == 0


def test_it_leaves_no_process_behind_when_the_broker_cannot_start(folder: Path) -> None:
    (folder / ".dagorama").mkdir()
    (folder / ".dagorama" / "broker.sqlite3").write_bytes(b"this is no database" * 100)
    ended = refused(folder, "--port", "0", "--http-port", "0")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1
    assert "this ends dagorama dev" in ended.stderr
