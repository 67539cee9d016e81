"""The worker restarts when files change, and only then; real processes and a real watch."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.support.scripted_broker import WAIT, ScriptedBroker, environment_of
from tests.support.worker_command import await_that
from tests.support.worker_grants import Wanted

#: The command by its own name, and as an option of `dagorama worker`.
OWN = ("-c", "from dagorama.hot_reload import run_hot_reload_worker; run_hot_reload_worker()")
COMMANDS = (OWN, ("-m", "dagorama", "worker", "--reload"))


MISUSE = """
from dagorama import DAGDefinition, dagorama
class Watched(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.entrypoint(number) + 1
"""


class HotReload:
    def __init__(
        self, broker: ScriptedBroker, folder: Path, command: tuple[str, ...] = OWN, *more: str,
        stderr: IO[str] | int = subprocess.PIPE,
    ) -> None:  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, *command, "--toleration", "GPU", "--watch-dir", ".", *more],
            cwd=folder, env=environment_of(broker), stderr=stderr, text=True,
        )  # fmt: skip

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self._process.send_signal(number)
        _, errors = self._process.communicate(timeout=WAIT)
        return self._process.returncode, errors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "watched_module.py", 1)
    return tmp_path


@pytest.fixture(params=COMMANDS, ids=["worker-hot-reload", "dagorama worker --reload"])
def hot(request: pytest.FixtureRequest, broker: ScriptedBroker, folder: Path) -> Iterator[HotReload]:
    made = HotReload(broker, folder, request.param)
    yield made
    made.end()


def write(path: Path, value: int) -> None:
    path.write_text(
        "from dagorama.decorators import dagorama\n"
        "from dagorama.definition import DAGDefinition\n"
        "class Watched(DAGDefinition):\n"
        "    @dagorama().syncfn\n"
        "    def entrypoint(self) -> int:\n"
        f"        return {value}\n"
    )


def test_a_save_by_rename_restarts_the_worker_with_its_flags(
    broker: ScriptedBroker, hot: HotReload, folder: Path
) -> None:
    first = broker.greeted()
    assert list(first.hello.tolerations) == ["GPU"]
    write(folder / "watched_module.py.new", 2)
    os.replace(folder / "watched_module.py.new", folder / "watched_module.py")
    second = broker.greeted()
    assert second.hello.worker != first.hello.worker
    assert list(second.hello.tolerations) == ["GPU"]


def test_the_new_worker_runs_the_new_code(broker: ScriptedBroker, hot: HotReload, folder: Path) -> None:
    broker.greeted()
    write(folder / "watched_module.py", 2)
    second = broker.greeted()
    wanted = Wanted("entrypoint", definition="watched_module:Watched", hash=hash_in(folder))
    second.grant(wanted)
    assert second.value() == 2


def test_compiled_files_are_ignored(broker: ScriptedBroker, hot: HotReload, folder: Path) -> None:
    """The next thing seen after them is the change of a source file."""
    broker.greeted()
    (folder / "__pycache__").mkdir(exist_ok=True)
    (folder / "__pycache__" / "watched_module.cpython-311.pyc").write_bytes(b"compiled")
    write(folder / "other_module.py", 2)
    broker.greeted()
    code, errors = hot.end()
    assert code == 0
    assert errors.count("; restarting") == 1
    assert "other_module.py changed" in errors


def test_files_of_other_names_and_of_dagorama_dev_are_ignored(broker: ScriptedBroker, folder: Path) -> None:
    (folder / ".dagorama").mkdir()
    hot = HotReload(broker, folder, COMMANDS[1], "--watch-pattern", "*.py")
    broker.greeted()
    (folder / "result.txt").touch()
    (folder / ".dagorama" / "ours.py").touch()
    write(folder / "other_module.py", 2)
    broker.greeted()
    code, errors = hot.end()
    assert code == 0
    assert errors.count("; restarting") == 1
    assert "] other_module.py changed; restarting" in errors


def test_misuses_are_printed_at_the_start_and_after_a_change(broker: ScriptedBroker, folder: Path) -> None:
    (folder / "watched_module.py").write_text(MISUSE)
    with (folder / "log").open("w") as log:
        hot = HotReload(broker, folder, COMMANDS[1], "--watch-pattern", "*.py", stderr=log)
    await_that(lambda: "watched_module.py:6:16: DAG002 the operator `+`" in (folder / "log").read_text())
    (folder / "other_module.py").write_text(MISUSE)
    await_that(lambda: "other_module.py:6:16: DAG002 the operator `+`" in (folder / "log").read_text())
    assert hot.end()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_with_its_worker(broker: ScriptedBroker, folder: Path, number: signal.Signals) -> None:
    """`end` returns when nobody has its pipe any more, its worker included."""
    hot = HotReload(broker, folder)
    broker.greeted()
    code, errors = hot.end(number)
    assert code == 0
    assert "Traceback" not in errors


def hash_in(folder: Path) -> str:
    script = "from dagorama.serializer import find; print(find('watched_module:Watched.entrypoint').decorated.hash)"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
