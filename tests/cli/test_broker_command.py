"""`dagorama-broker` as a person meets it: processes, exit codes, and one sentence for each mistake."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dagorama_broker.store import open_store
from tests.support.brokers import broker_command, launch_broker
from tests.support.processes import SECONDS, is_serving
from tests.support.records import begun, graph, node

BROKER = [sys.executable, "-m", "dagorama_broker"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [name for name in os.environ if name.startswith("DAGORAMA_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.sqlite3"


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of a command that ends by itself."""
    done = subprocess.run([*BROKER, *arguments], capture_output=True, text=True, timeout=SECONDS)
    return done.returncode, done.stdout, done.stderr


def forked(*arguments: str) -> tuple[int, str, str]:
    """Return the same of a fork, for a command of which gRPC logs nothing: it starts in a fifth of the time."""
    done = broker_command(*arguments)
    return done.returncode, done.stdout, done.stderr


@contextmanager
def serving(*options: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A broker and the first line that it writes."""
    with subprocess.Popen([*BROKER, "serve", *options], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield process, process.stderr.readline().rstrip("\n")
        finally:
            process.kill()


def address_in(line: str) -> str:
    (found,) = re.findall(r"127\.0\.0\.1:\d+", line)
    return str(found)


def queue_two(store: str) -> None:
    kept = open_store(store)
    begun(kept)
    kept.commit(graph(node(1), node(2)))
    kept.close()


# --- serve ------------------------------------------------------------------------------------------------------


def test_one_line_says_where_it_serves_on_which_store_and_what_it_restored(store: str) -> None:
    queue_two(store)
    with serving("--port", "0", "--store", store) as (_, line):
        assert re.search(
            rf" INFO serving on 127\.0\.0\.1:\d+, store {store}, restored 2 unfinished nodes of 1 instances", line
        )
        assert is_serving(address_in(line))


def test_the_line_may_be_json() -> None:
    with serving("--port", "0", "--store", "memory://", "--log-format", "json") as (_, line):
        entry = json.loads(line)
        assert entry.keys() == {"time", "level", "logger", "message"}
        assert entry["message"].startswith("serving on 127.0.0.1:")


def test_what_options_say_the_environment_says_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", "0")
    monkeypatch.setenv("DAGORAMA_STORE", "memory://")
    monkeypatch.setenv("DAGORAMA_LOG_FORMAT", "json")
    with serving() as (_, line):
        assert "store memory" in json.loads(line)["message"]


def test_without_a_store_it_keeps_its_file_in_the_users_state_folder(tmp_path: Path) -> None:
    with serving("--port", "0") as (_, line):
        assert f"store sqlite:///{tmp_path}/state/dagorama/broker.sqlite3" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(store: str, number: signal.Signals) -> None:
    with serving("--port", "0", "--store", store) as (process, _):
        process.send_signal(number)
        assert process.wait(SECONDS) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_insecure_is_logged_loudly() -> None:
    with serving("--host", "0.0.0.0", "--insecure", "--port", "0", "--store", "memory://") as (process, _):
        assert process.stderr is not None
        warning = process.stderr.readline()
        assert "WARNING INSECURE" in warning
        assert "without tokens and TLS" in warning


# --- mistakes ---------------------------------------------------------------------------------------------------


def refused(*options: str, run: Callable[..., tuple[int, str, str]] = forked) -> tuple[int, str]:
    """Exit code and the one sentence on stderr, below which is the address of its documentation."""
    code, out, err = run("serve", *options)
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    assert len(lines) == 2, err
    assert lines[1].startswith("See docs/reference/errors.md#")
    return code, lines[0]


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with launch_broker(port=0) as broker:
        code, sentence = refused("--port", f"{broker.port}", "--store", "memory://", run=run)
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{broker.port}" in sentence


def test_a_store_that_another_broker_has_is_one_sentence(store: str) -> None:
    with launch_broker(port=0, store=store) as broker:
        code, sentence = refused("--port", "0", "--store", store)
        assert code == 1
        assert f"in use by another broker (pid {broker.pid})" in sentence


def test_a_store_of_a_newer_version_is_one_sentence(store: str) -> None:
    queue_two(store)
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as connection:
        connection.execute("PRAGMA user_version = 9999")
    code, sentence = refused("--port", "0", "--store", store)
    assert code == 1
    assert "written by a newer dagorama" in sentence


def test_a_store_that_is_no_store_is_one_sentence(store: str) -> None:
    Path(store.removeprefix("sqlite:///")).write_text("dear diary, " * 1000)
    code, sentence = refused("--port", "0", "--store", store)
    assert code == 1
    assert "not a dagorama store" in sentence


@pytest.mark.parametrize(
    ("options", "part", "expected"),
    [
        (["--store", "mysql://nowhere"], "sqlite:////absolute/path.db", 78),
        (["--store", "sqlite:////proc/dagorama/x.db"], "/proc/dagorama/x.db", 1),
        (["--host", "0.0.0.0"], "DAGORAMA_INSECURE=1", 78),
        (["--host", "192.0.2.1", "--insecure", "--port", "0", "--store", "memory://"], "cannot listen on 192.0.2.1", 1),
    ],
    ids=["no such kind of store", "no such folder", "not this machine alone", "not an address of this machine"],
)
def test_an_option_that_cannot_be_used_is_one_sentence(options: list[str], part: str, expected: int) -> None:
    code, sentence = refused(*options, run=run)
    assert code == expected
    assert part in sentence


def test_a_variable_that_cannot_be_used_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_LEASE", "long")
    assert refused() == (78, "dagorama-broker: DAGORAMA_LEASE is 'long': it must be a number of seconds")


def test_an_option_that_is_not_there_says_how_the_command_is_used() -> None:
    code, _, err = run("serve", "--colour", "blue")
    assert code == 2
    assert "Usage: dagorama-broker serve" in err


# --- asking ---------------------------------------------------------------------------------------------------


def test_health_is_told_by_the_exit_code() -> None:
    with launch_broker(port=0) as broker:
        assert forked("health")[:2] == (0, "serving\n")
        assert forked("health", "--host", "localhost", "--port", f"{broker.port}")[:2] == (0, "serving\n")
    code, out, err = forked("health", "--port", f"{broker.port}")
    assert (code, out) == (1, "")
    assert err == f"dagorama-broker: no broker answers at 127.0.0.1:{broker.port}\n"
