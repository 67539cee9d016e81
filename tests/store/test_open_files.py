"""Files of a store that are removed, replaced or overwritten: noticed before an acknowledgement, or at the start."""

import os
import resource
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner

from dagorama_broker.cli import main
from dagorama_broker.errors import StoreError
from dagorama_broker.model.rows import Changes
from dagorama_broker.store.sqlite.store import SqliteStore
from tests.support.records import begun, graph, instance_row, node, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / "store.db"


def instance(key: int) -> Changes:
    first = key * 10
    return graph(node(first, instance=key), instance=key, origin=key.to_bytes(12, "big"))


def instances(path: Path) -> list[int]:
    """Which of the first nine instances are there."""
    with opened(path) as store:
        return [key for key in range(1, 10) if store.has_instance(instance_row(key).id)]


def checkpoint(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


# --- under a running broker ----------------------------------------------------------------------------


def copied(path: Path) -> Path:
    return Path(shutil.copy(path, path.with_name("copy")))


def remove_all(path: Path) -> None:
    for file in path.parent.glob("*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()


def link_to_moved(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")))


def put_file(path: Path) -> None:
    path.unlink()
    path.write_text("text")


WAYS: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: path.unlink(),
    "moved": lambda path: path.rename(path.with_name("old.db")),
    "replaced by a copy": lambda path: os.replace(copied(path), path),
    "replaced by a link to it": link_to_moved,
    "replaced by something else": put_file,
    "removed with all its files": remove_all,
    "removed with its folder": lambda path: shutil.rmtree(path.parent),
    "without its log": lambda path: os.unlink(f"{path}-wal"),
    "without the log's index": lambda path: os.unlink(f"{path}-shm"),
    "with another log": lambda path: os.replace(shutil.copy(f"{path}-wal", f"{path}-old"), f"{path}-wal"),
    "without its lock": lambda path: os.unlink(f"{path}.lock"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_commit_to_files_that_a_start_would_not_find_fails_and_what_they_held_is_saved(path: Path, way: str) -> None:
    with opened(path) as store:
        store.commit(instance(1))
        checkpoint(path)
        store.commit(instance(2))
        WAYS[way](path)
        with pytest.raises(StoreError, match=r"while the broker was running; .*nothing that was acknowledged is lost"):
            store.commit(instance(3))
    assert instances(path) == [1, 2, 3]


@pytest.mark.parametrize("way", WAYS)
def test_a_store_that_is_closed_after_its_files_were_taken_away_is_saved_too(path: Path, way: str) -> None:
    store = SqliteStore(path, busy=0.0, count_together=0.0)
    begun(store)
    store.commit(instance(1))
    WAYS[way](path)
    with pytest.raises(StoreError, match=r"while the broker was running; .*nothing that was acknowledged is lost"):
        store.close()
    store.close()
    assert instances(path) == [1]


def test_what_stands_in_the_place_of_a_store_is_kept_beside_it(path: Path) -> None:
    with opened(path) as store:
        put_file(path)
        with pytest.raises(StoreError, match=r"the file that had its name is now .*store\.db\.replaced-"):
            store.commit(instance(1))
    (aside,) = path.parent.glob("store.db.replaced-*")
    assert aside.read_text() == "text"


def test_a_store_whose_folder_was_moved_is_named_and_left_there(path: Path) -> None:
    moved = path.parent.with_name("moved")
    with opened(path) as store:
        store.commit(instance(1))
        path.parent.rename(moved)
        path.parent.mkdir()
        with pytest.raises(StoreError, match=f"the store is now {moved}/store.db"):
            store.commit(instance(2))
    assert list(path.parent.iterdir()) == []
    assert instances(moved / path.name) == [1, 2]


def test_a_store_that_is_overwritten_in_place_is_refused_until_someone_has_looked(path: Path) -> None:
    older = path.with_name("older")
    with opened(path) as store:
        store.commit(instance(1))
        checkpoint(path)
        shutil.copy(path, older)
        store.commit(graph(*map(node, range(1000, 1300)), instance=2, origin=b"x" * 12))
        checkpoint(path)
        store.commit(instance(3))
        shutil.copyfile(older, path)
        with pytest.raises(StoreError, match="was overwritten by another program while the broker was running"):
            store.commit(instance(4))
    with pytest.raises(StoreError, match="was overwritten by another program while a broker had it open"):
        instances(path)
    shutil.copyfile(older, path)
    assert SqliteStore(path).accept_loss() == "the last 3 changes of 5"
    assert instances(path) == [1]


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_a_log_that_is_overwritten_in_place_is_noticed(path: Path, content: bytes) -> None:
    with opened(path) as store:
        store.commit(instance(1))
        with open(f"{path}-wal", "wb") as log:
            log.write(content)
        with pytest.raises(StoreError):
            store.commit(instance(2))
        with pytest.raises(StoreError, match=r"store\.db-wal was overwritten|is damaged"):
            store.commit(instance(3))


@pytest.mark.parametrize("size", [0, 4096])
def test_a_store_that_is_cut_off_is_noticed(path: Path, size: int) -> None:
    with opened(path) as store:
        store.commit(instance(1))
        checkpoint(path)
        os.truncate(path, size)
        with pytest.raises(StoreError):
            store.commit(instance(2))


def test_a_store_that_is_touched_or_checkpointed_by_others_goes_on(path: Path) -> None:
    with opened(path) as store:
        for key in range(1, 5):
            store.commit(instance(key))
            checkpoint(path)
            os.utime(path)
    assert instances(path) == [1, 2, 3, 4]


def test_checkpoints_of_another_program_beside_commits_are_not_taken_for_damage(path: Path) -> None:
    with opened(path, busy=10.0) as store, ThreadPoolExecutor(1) as beside:
        for key in range(1, 9):
            checkpoints = [beside.submit(checkpoint, path) for _ in range(5)]
            for number in range(20):
                store.commit(graph(node(key * 1000 + number, instance=key * 100 + number), instance=key * 100 + number,
                                   origin=bytes([key, number] * 6)))  # fmt: skip
            for each in checkpoints:
                each.result()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM instances").fetchone() == (160,)


def test_a_log_that_another_program_begins_while_the_broker_compares_it_is_not_taken_for_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread

    def after_a_checkpoint(descriptor: int, size: int, offset: int) -> bytes:
        if (size, offset) == (8, 16):  # the salts of the log, which are read after those of its index
            checkpoint(path)
        return pread(descriptor, size, offset)

    with opened(path) as store:
        monkeypatch.setattr(os, "pread", after_a_checkpoint)
        store.commit(instance(1))
        monkeypatch.setattr(os, "pread", pread)
    assert instances(path) == [1]


def test_its_own_checkpoints_are_not_taken_for_another_programs(path: Path) -> None:
    with opened(path) as store:
        for key in range(1, 9):
            nodes = [node(key * 1000 + n, instance=key)._replace(arguments=bytes(40_000)) for n in range(200)]
            store.commit(graph(*nodes, instance=key, origin=key.to_bytes(12, "big")))
        assert path.stat().st_size > 40_000 * 200
    assert len(instances(path)) == 8


def test_values_whose_folder_is_gone_are_not_acknowledged(path: Path) -> None:
    with opened(path) as store:
        digest, length = store.put_large([b"first"])
        shutil.rmtree(f"{path}.values")
        with pytest.raises(StoreError, match=r"store\.db\.values was removed while the broker was running"):
            store.put_large([b"second"])
        with pytest.raises(StoreError, match="was removed while the broker was running"):
            store.keep_large(digest, length)
        Path(f"{path}.values").mkdir()
        for call in (lambda: store.put_large([b"second"]), lambda: store.commit(instance(1))):
            with pytest.raises(StoreError, match="was replaced while the broker was running"):
                call()


def test_a_commit_needs_no_descriptor_and_no_other_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLITE_TMPDIR", "/nowhere")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with opened(path) as store:
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
            for key in range(1, 9):
                store.commit(graph(*map(node, range(key * 2000, key * 2000 + 2000)), instance=key,
                                   origin=key.to_bytes(12, "big")))  # fmt: skip
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# --- between two starts ----------------------------------------------------------------------------------


def killed(path: Path, *keys: int, together: float = 0.0) -> Path:
    """A store as SIGKILL leaves it, with these instances in its log."""
    whole = path.with_name("running.db")
    with opened(whole, together=together) as store:
        for key in keys:
            store.commit(instance(key))
        for suffix in ("", "-wal", ".state"):
            shutil.copy(f"{whole}{suffix}", f"{path}{suffix}")
    return path


def test_a_store_that_was_killed_is_whole(path: Path) -> None:
    assert instances(killed(path, 1, 2)) == [1, 2]


def test_a_store_that_has_lost_its_log_is_refused_with_what_is_missing(path: Path) -> None:
    killed(path, 1, 2)
    os.unlink(f"{path}-wal")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"lacks the last 3 of 3 changes.*epoch 1.*dagorama-broker accept-loss"):
            instances(path)


def test_a_lost_log_is_noticed_if_its_commits_are_counted_together(path: Path) -> None:
    killed(path, *range(1, 9), together=60.0)
    os.unlink(f"{path}-wal")
    with pytest.raises(StoreError, match=r"lacks the last \d of \d changes"):
        instances(path)


def test_a_store_that_is_opened_again_at_once_is_whole(path: Path) -> None:
    store = SqliteStore(path, count_together=60.0)
    for key in range(1, 4):
        begun(store)
        store.commit(instance(key))
        store.close()
    assert instances(path) == [1, 2, 3]


def test_a_log_that_another_program_has_put_into_the_store_is_not_lost(path: Path) -> None:
    checkpoint(killed(path, 1, 2))
    Path(f"{path}-wal").unlink(missing_ok=True)
    assert instances(path) == [1, 2]


def test_a_loss_that_is_accepted_reuses_no_epoch(path: Path) -> None:
    killed(path, 1, 2)
    os.unlink(f"{path}-wal")
    accepted = CliRunner().invoke(main, ["accept-loss", "--store", f"sqlite:///{path}"])
    assert accepted.output == "accepted: the last 3 changes of 3; the next start continues without it\n"
    store = SqliteStore(path, count_together=0.0)
    assert begun(store) == 2
    store.close()
    again = CliRunner().invoke(main, ["accept-loss", "--store", f"sqlite:///{path}"])
    assert again.output == "nothing is missing from this store\n"


def test_an_older_copy_is_refused_until_it_is_accepted(path: Path) -> None:
    with opened(path) as store:
        store.commit(instance(1))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM INTO ?", (str(path.with_name("copy.db")),))
        store.commit(instance(2))
    os.replace(path.with_name("copy.db"), path)
    with pytest.raises(StoreError, match="lacks the last 1 of 3 changes"):
        instances(path)
    assert SqliteStore(path).accept_loss() == "the last 1 changes of 3"
    assert instances(path) == [1]


def test_a_copy_without_its_state_starts(path: Path) -> None:
    with opened(path) as store:
        store.commit(instance(1))
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    assert instances(copy) == [1]


def test_a_store_that_is_gone_is_not_begun_again(path: Path) -> None:
    with opened(path) as store:
        store.commit(instance(1))
    path.unlink()
    with pytest.raises(StoreError, match=r"store\.db is missing, with the 2 changes that store\.db\.state counts"):
        instances(path)
    assert not path.exists()
    assert SqliteStore(path).accept_loss() == "the last 2 changes of 2"
    assert instances(path) == []


def test_a_damaged_state_file_is_named(path: Path) -> None:
    with opened(path):
        pass
    state = Path(f"{path}.state")
    state.write_bytes(state.read_bytes().replace(b"commits 1", b"commits 7"))
    with pytest.raises(StoreError, match=r"store\.db\.state is damaged"):
        instances(path)


def test_a_store_that_was_used_and_has_no_epoch_is_damaged(path: Path) -> None:
    with opened(path) as store:
        store.commit(instance(1))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM meta")
    os.unlink(f"{path}.state")
    with pytest.raises(StoreError, match="its epoch is missing"):
        instances(path)


def test_values_that_are_gone_are_said_at_the_start(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from dagorama_broker.model.rows import LargeRow

    with opened(path) as store:
        digest, _ = store.put_large([b"value"])
        changes = instance(1)
        changes.large = [LargeRow(10, digest)]
        store.commit(changes)
    assert sha256(b"value").digest() == digest
    shutil.rmtree(f"{path}.values")
    with opened(path):
        assert "store.db.values is missing, with the large values that nodes refer to" in caplog.text


def test_only_a_store_in_a_file_can_lose_anything() -> None:
    told = CliRunner().invoke(main, ["accept-loss", "--store", "memory://"])
    assert (told.exit_code, "is not a file" in told.output) == (78, True)


def test_no_loss_is_accepted_of_a_store_that_there_is_not(tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["accept-loss", "--store", f"sqlite:///{tmp_path}/mistyped.db"])
    assert (told.exit_code, "there is no store" in told.output) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="folder is a folder: a store is a file"), opened(tmp_path / "folder"):
        pass
