"""`dagorama backup`: a store that starts and has everything that was acknowledged before, while a broker serves it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import pytest

from dagorama import DAGDefinition, dagorama, resolve, resolve_all
from tests.support.brokers import launch_broker
from tests.support.commands import WAIT, data, invoke, printed, refusal
from tests.support.workers import launch_workers

#: Its tests start brokers and workers, ten seconds and more together.
pytestmark = pytest.mark.slow

SIZE = 300_000  #: bytes, so that a value is stored as a file


class Keeps(DAGDefinition):
    """Makes a large value."""

    @dagorama().syncfn
    def entrypoint(self, number: int) -> bytes:
        return number.to_bytes(4, "big") * (SIZE // 4)


class Counts(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return number


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "served" / "store.sqlite3"


def save(target: Path, store: Path) -> str:
    return printed("backup", target, "--store", store)


def values_of(store: Path) -> set[str]:
    return {file.name for file in Path(f"{store}.values").rglob("*") if len(file.name) == 64}


def test_a_copy_has_the_instances_and_the_values_and_starts(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "one.sqlite3"
    with launch_broker(port=0, store=f"sqlite:///{store}"):
        with launch_workers(1):
            pairs = [Keeps()(number) for number in range(3)]
            resolve_all(pairs, timeout=WAIT)
        waiting, later = Counts()(7)
        assert save(target, store) == f"{target} (instances: 4, large values: 3)\n"
    assert target.stat().st_mode & 0o777 == 0o600
    assert values_of(target) == values_of(store)
    with launch_broker(port=0, store=f"sqlite:///{target}"), launch_workers(1):
        assert [len(value) for value in resolve_all(pairs, timeout=WAIT)] == [SIZE] * 3
        assert resolve(waiting, later, timeout=WAIT) == 7


@pytest.fixture
def submitting(store: Path) -> Iterator[list[int]]:
    """Programs submit instances with large values until the test has ended; the numbers of those acknowledged."""
    acknowledged, over = list[int](), Event()

    def submit() -> None:
        while not over.is_set():
            number = len(acknowledged)
            Keeps()(number) if number % 3 else Counts()(number)
            acknowledged.append(number)

    with launch_broker(port=0, store=f"sqlite:///{store}"), launch_workers(1):
        thread = Thread(target=submit)
        thread.start()
        try:
            yield acknowledged
        finally:
            over.set()
            thread.join()


def test_a_copy_that_is_made_meanwhile_has_all_that_was_acknowledged_before(
    submitting: list[int], store: Path, tmp_path: Path
) -> None:
    for round in range(5):
        while len(submitting) < 10 * (round + 1):
            assert data("status")["instances"] >= 0  # it serves
        before = len(submitting)
        target = tmp_path / f"{round}.sqlite3"
        save(target, store)
        with closing(sqlite3.connect(target)) as copy:
            (instances,) = copy.execute("SELECT count(*) FROM instances").fetchone()
            named = {digest.hex() for (digest,) in copy.execute("SELECT sha256 FROM large_refs")}
        assert instances >= before
        assert named <= values_of(target)


def test_a_store_that_no_broker_serves_is_copied_too_and_starts_afterwards(store: Path, tmp_path: Path) -> None:
    with launch_broker(port=0, store=f"sqlite:///{store}"):
        instance, _ = Counts()(1)
    save(tmp_path / "copy", store)
    for path in (store, tmp_path / "copy"):
        with launch_broker(port=0, store=f"sqlite:///{path}"):
            assert data("show", instance.instance_id)["instance"]["nodes"] == 1


def test_values_are_copied_where_they_cannot_be_linked(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with launch_broker(port=0, store=f"sqlite:///{store}"):
        with launch_workers(1):
            resolve(*Keeps()(1), timeout=WAIT)

        def link(source: object, target: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr("os.link", link)
        save(tmp_path / "copy", store)
        (name,) = values_of(tmp_path / "copy")
        copied = tmp_path / "copy.values" / name[:2] / name
        original = Path(f"{store}.values") / name[:2] / name
        assert copied.read_bytes() == original.read_bytes()
        assert copied.stat().st_nlink == 1
        original.chmod(0o600)
        original.write_bytes(b"damage")
        code, said = refusal("backup", tmp_path / "other", "--store", store)
        assert (code, f"{original} is damaged" in said) == (1, True)
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("other")] == []


@pytest.mark.parametrize("name", ["copy", "copy-wal", "copy.state", "copy.logs", "copy.values"])
def test_an_existing_target_is_refused_and_left_alone(store: Path, tmp_path: Path, name: str) -> None:
    with launch_broker(port=0, store=f"sqlite:///{store}"):
        pass
    (tmp_path / name).write_text("mine")
    code, said = refusal("backup", tmp_path / "copy", "--store", store)
    assert (code, f"{name} exists" in said) == (1, True)
    assert (tmp_path / name).read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == sorted([name, "served"])


def test_a_value_that_the_store_has_lost_is_told(store: Path, tmp_path: Path) -> None:
    with launch_broker(port=0, store=f"sqlite:///{store}"), launch_workers(1):
        resolve(*Keeps()(1), timeout=WAIT)
        (name,) = values_of(store)
        (Path(f"{store}.values") / name[:2] / name).unlink()
        result = invoke("backup", tmp_path / "copy", "--store", store)
    assert (result.exit_code, result.stdout) == (1, f"{tmp_path / 'copy'} (instances: 1, large values: 0)\n")
    assert "lacks large values that nodes refer to: 1 of them" in result.stderr


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but more than a few bytes of text" * 100)
    with closing(sqlite3.connect(tmp_path / "other.sqlite3")) as other:
        other.execute("CREATE TABLE t (x)")
    for store, code, said in (
        (tmp_path / "none", 1, "there is no store"),
        (tmp_path / "text", 1, "not a dagorama store"),
        (tmp_path / "other.sqlite3", 1, "some other program's SQLite file"),
        ("memory://", 78, "is not a file, so there is nothing to copy"),
    ):
        found, told = refusal("backup", tmp_path / "copy", "--store", store)
        assert (found, said in told, told.count("\n")) == (code, True, 2), told
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("copy")] == []


# --- restoring --------------------------------------------------------------------------------------------


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    """A copy of a store with two instances, and with a third that was made after it."""
    copy = tmp_path / "copies" / "one.sqlite3"
    with launch_broker(port=0, store=f"sqlite:///{store}"):
        with launch_workers(1):
            resolve_all([Keeps()(1), Keeps()(2)], timeout=WAIT)
        save(copy, store)
        Counts()(3)
    return copy


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_copy_becomes_a_store_with_epochs_of_its_own(copy: Path, tmp_path: Path, elsewhere: bool) -> None:
    restored, folder = tmp_path / "restored.sqlite3", tmp_path / "elsewhere"
    values = ["--values", f"file://{folder}"] if elsewhere else []
    said = printed("restore", copy, "--store", restored, *values)
    assert said == f"{restored} (instances: 2, large values: 2)\n"
    assert copy.exists()
    assert values_of(copy)
    assert folder.exists() == elsewhere
    environment = {"DAGORAMA_VALUES": f"file://{folder}"} if elsewhere else {}
    with launch_broker(port=0, store=f"sqlite:///{restored}", environment=environment), launch_workers(1):
        assert len(data("list")) == 2
        instance, promise = Keeps()(3)
        assert resolve(instance, promise, timeout=WAIT) == (3).to_bytes(4, "big") * (SIZE // 4)
    with closing(sqlite3.connect(restored)) as connection:
        ((epoch,),) = connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchall()
    assert epoch > 10_000


def test_a_copy_replaces_no_store(copy: Path, store: Path) -> None:
    before = store.read_bytes()
    assert f"{store} exists: choose another target, or remove it first" in refusal("restore", copy, "--store", store)[1]
    assert store.read_bytes() == before


def test_a_damaged_copy_becomes_no_store(copy: Path, tmp_path: Path) -> None:
    with open(copy, "r+b") as file:
        file.seek(4_096)
        file.write(bytes(8_192))
    restored = tmp_path / "restored.sqlite3"
    assert "damaged" in refusal("restore", copy, "--store", restored)[1]
    assert not restored.exists()


def test_what_is_no_copy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, said in (("none", "there is no store"), ("empty", "it is empty, and not a dagorama store")):
        assert said in refusal("restore", tmp_path / name, "--store", tmp_path / "restored.sqlite3")[1]
    assert [file.name for file in tmp_path.iterdir()] == ["empty"]
