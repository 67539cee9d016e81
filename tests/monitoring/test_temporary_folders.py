"""Temporary folders: they outlive no process that uses them for long, however it ends."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dagorama_broker.store.memory.large_values import LargeValues
from dagorama_monitoring.process.temporary_folders import temporary_folder
from tests.support.processes import SECONDS

#: A process with a forked child: says its folder, and lives until its input ends.
OTHER = """
import os, sys
from dagorama_monitoring.process.temporary_folders import temporary_folder
folder, _ = temporary_folder("test")
(folder / "file").touch()
if not os.fork():
    sys.stdin.read()
    os._exit(0)
print(folder, flush=True)
os.wait()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def another(temporary: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A process with the same temporary folder, and its folder there."""
    environment = {**os.environ, "TMPDIR": str(temporary)}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", OTHER], env=environment, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout
        yield other, Path(other.stdout.readline().strip())


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one_when_its_forks_have_ended_too(
    temporary: Path,
) -> None:
    with another(temporary) as (process, folder):
        first, _ = temporary_folder("test")
        process.kill()
        process.wait(SECONDS)
        second, _ = temporary_folder("test")
        assert set(temporary.iterdir()) == {first, second, folder}, "its child still lives"
        process.communicate(timeout=SECONDS)  # until the child has ended, too
    third, _ = temporary_folder("test")
    assert set(temporary.iterdir()) == {first, second, third}
    assert first.stat().st_mode & 0o777 == 0o700


def test_folders_and_links_of_others_are_left_alone(temporary: Path) -> None:
    ours, _ = temporary_folder("test")
    prefix = ours.name.partition(f"{os.getpid()}-")[0]
    names = [f"{prefix}left", "dagorama-test-another.machine-1-ab", "dagorama-other-1", "kept"]
    for name in names:
        (temporary / name / "inner").mkdir(parents=True)
    (temporary / f"{prefix}link").symlink_to(temporary / "kept")
    (temporary / f"{prefix}file").touch()
    if os.geteuid() == 0:
        (temporary / f"{prefix}other").mkdir()
        os.chown(temporary / f"{prefix}other", 65534, 65534)
    before = set(temporary.iterdir())
    latest, _ = temporary_folder("test")
    assert set(temporary.iterdir()) == before - {temporary / f"{prefix}left"} | {latest}
    assert (temporary / "kept" / "inner").exists()


def test_a_store_in_memory_keeps_its_values_in_such_a_folder_and_removes_it(temporary: Path) -> None:
    values = LargeValues()
    values.put([b"value"])
    [folder] = temporary.iterdir()
    again, lock = temporary_folder("memory")
    assert set(temporary.iterdir()) == {folder, again}
    os.close(lock)
    temporary_folder("memory")
    del values
    assert not folder.exists()
    assert not again.exists()
