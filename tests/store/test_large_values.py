"""Large values on disk: whole or not there at all, synced, and never other than they were."""

import os
import resource
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread

import pytest

from dagorama_broker.errors import StoreError
from dagorama_broker.model.looks import Wanted
from dagorama_broker.store import Store
from dagorama_broker.store.large_values import CHUNK, LargeFiles
from dagorama_broker.store.sqlite.store import SqliteStore
from tests.support.records import begun

CONTENT = b"0123456789abcdef" * (CHUNK // 4)
NAME = sha256(CONTENT).digest()


@pytest.fixture
def files(tmp_path: Path) -> LargeFiles:
    return LargeFiles(tmp_path / "values")


def file_of(files: LargeFiles, name: bytes = NAME) -> Path:
    return files.folder / name.hex()[:2] / name.hex()


def kept(files: LargeFiles) -> list[Path]:
    return [file for file in files.folder.rglob("*") if file.is_file()]


def read(files: LargeFiles, name: bytes = NAME) -> bytes:
    chunks = files.get(name)
    assert chunks is not None
    return b"".join(chunks)


def test_a_value_is_a_file_named_by_its_sha256(files: LargeFiles) -> None:
    assert files.put([CONTENT]) == (NAME, len(CONTENT))
    assert kept(files) == [file_of(files)]
    assert read(files) == CONTENT


def test_a_value_is_for_this_user_alone(files: LargeFiles) -> None:
    files.put([CONTENT])
    assert files.folder.stat().st_mode & 0o777 == 0o700


def test_equal_content_is_kept_once(files: LargeFiles) -> None:
    files.put([CONTENT])
    files.put([CONTENT[:5], CONTENT[5:]])
    assert kept(files) == [file_of(files)]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_value_of_any_size_comes_back_in_chunks_of_at_most_a_mebibyte(files: LargeFiles, size: int) -> None:
    content = CONTENT[:size]
    name, length = files.put([content])
    chunks = list(files.get(name) or ())
    assert length == size
    assert b"".join(chunks) == content
    assert all(len(chunk) <= CHUNK for chunk in chunks)


def test_what_breaks_off_leaves_nothing(files: LargeFiles) -> None:
    def chunks() -> Iterator[bytes]:
        yield CONTENT
        raise ConnectionError("the caller hung up")

    with pytest.raises(ConnectionError):
        files.put(chunks())
    assert kept(files) == []


def test_two_values_may_be_written_at_once(files: LargeFiles) -> None:
    other: list[tuple[bytes, int]] = []

    def chunks() -> Iterator[bytes]:
        yield CONTENT[:10]
        other.append(files.put([b"other"]))
        yield CONTENT[10:]

    assert files.put(chunks()) == (NAME, len(CONTENT))
    assert read(files) == CONTENT
    assert read(files, other[0][0]) == b"other"


@pytest.mark.parametrize("place", [0, CHUNK, len(CONTENT) - 1])
def test_a_damaged_file_is_an_error_before_its_last_chunk(files: LargeFiles, place: int) -> None:
    files.put([CONTENT])
    damaged = bytearray(CONTENT)
    damaged[place] ^= 1
    file_of(files).write_bytes(damaged)
    seen: list[bytes] = []
    with pytest.raises(StoreError, match=f"{NAME.hex()} is damaged"):
        seen.extend(files.get(NAME) or ())
    assert sum(map(len, seen)) < len(CONTENT)


@pytest.mark.parametrize("length", [0, 5, CHUNK, len(CONTENT) - 1])
def test_a_file_that_was_cut_is_an_error(files: LargeFiles, length: int) -> None:
    files.put([CONTENT])
    file_of(files).write_bytes(CONTENT[:length])
    with pytest.raises(StoreError, match="is damaged"):
        read(files)


def test_a_damaged_file_heals_when_the_value_is_given_again(files: LargeFiles) -> None:
    files.put([CONTENT])
    file_of(files).write_bytes(b"damaged")
    files.put([CONTENT])
    assert read(files) == CONTENT


def never(_: bytes) -> bool:
    return False


def test_a_value_that_is_given_again_while_it_is_collected_is_there_when_that_is_said(files: LargeFiles) -> None:
    def chunks() -> Iterator[bytes]:
        yield CONTENT
        files.collect(0.0, 10, never, never)
        files.empty(60.0)

    files.put([CONTENT])
    files.put(chunks())
    assert read(files) == CONTENT
    files.collect(60.0, 10, never, never)
    files.empty(60.0)
    assert read(files) == CONTENT


def test_what_was_collected_is_no_more_than_asked_for_and_leaves_nothing(files: LargeFiles) -> None:
    names = [files.put([b"%d" % number])[0] for number in range(5)]
    assert files.collect(0.0, 2, never, never)
    files.empty(60.0)
    assert [files.has(name) for name in names] == [False, False, True, True, True]
    assert not files.collect(0.0, 10, never, never)
    files.empty(60.0)
    assert kept(files) == []


def test_a_value_that_is_named_is_looked_at_once(files: LargeFiles) -> None:
    name, _ = files.put([CONTENT])
    asked: list[bytes] = []

    def is_named(sha256: bytes) -> bool:
        asked.append(sha256)
        return True

    for _ in range(3):
        files.collect(0.0, 10, never, is_named)
    files.unnamed([name])
    files.collect(0.0, 10, never, is_named)
    assert asked == [name, name]
    assert files.has(name)


def test_what_was_taken_away_and_not_deleted_goes_at_the_next_start(files: LargeFiles) -> None:
    files.put([CONTENT])
    files.collect(0.0, 10, never, never)
    assert len(kept(files)) == 1
    LargeFiles(files.folder).sweep()
    assert kept(files) == []


def test_what_an_earlier_broker_left_is_found(files: LargeFiles) -> None:
    name, _ = files.put([CONTENT])
    strange = file_of(files).with_name("x" * 64)
    strange.touch()
    later = LargeFiles(files.folder)
    later.collect(0.0, 10, never, never)
    assert later.has(name)
    later.look_around()
    later.collect(0.0, 10, never, never)
    assert not later.has(name)
    later.empty(60.0)
    assert kept(files) == [strange]


def test_a_name_that_is_no_sha256_is_not_there(files: LargeFiles) -> None:
    files.put([CONTENT])
    assert not any(files.has(name) for name in (b"", b"\x00", NAME[:31], NAME + b"\x00", bytes(32)))


def test_a_disk_that_takes_no_more_is_an_error_that_says_so_and_leaves_nothing(files: LargeFiles) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK, before[1]))
    try:
        with pytest.raises(StoreError, match=f"large values in {files.folder}: File too large"):
            files.put([CONTENT])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert kept(files) == []


@pytest.mark.parametrize("name", ["", "unfinished"])
def test_a_file_that_has_the_name_of_a_folder_is_named(files: LargeFiles, name: str) -> None:
    file = files.folder / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with pytest.raises(StoreError, match=f"^large values in {files.folder}: {file.name} is not a folder"):
        files.put([CONTENT])


def test_what_a_killed_broker_was_writing_is_swept_out_at_the_next_start(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "broker.sqlite3")
    begun(store)
    name, _ = store.put_large([CONTENT])
    store.close()
    unfinished = tmp_path / "broker.sqlite3.values" / "unfinished" / "9"
    unfinished.write_bytes(b"half of it")
    begun(store)
    assert not unfinished.exists()
    assert store.has_large(name)
    store.close()


def test_a_broker_that_was_replaced_while_it_wrote_a_value_moves_no_file_of_its_successor(files: LargeFiles) -> None:
    successor, is_begun, goes_on = LargeFiles(files.folder), Event(), Event()
    errors: list[str] = []

    def of_the_old_one() -> Iterator[bytes]:
        yield b"old"
        is_begun.set()
        goes_on.wait()

    def write() -> None:
        try:
            files.put(of_the_old_one())
        except StoreError as error:
            errors.append(f"{error}")

    def of_the_successor() -> Iterator[bytes]:
        yield CONTENT[:10]
        goes_on.set()
        thread.join()
        yield CONTENT[10:]

    thread = Thread(target=write)
    thread.start()
    is_begun.wait()
    successor.sweep()
    assert successor.put(of_the_successor())[0] == NAME
    assert read(successor) == CONTENT
    assert len(errors) == 1
    assert not successor.has(sha256(b"old").digest())


# --- with clients on the same machine ---------------------------------------------------------------

GIVEN = "0123456789abcdef" * 2


@pytest.fixture
def shared(files: LargeFiles) -> LargeFiles:
    files.share()
    return files


def given(files: LargeFiles, content: bytes = CONTENT) -> Path:
    """What a client has written."""
    file = files.folder / "unfinished" / GIVEN
    file.write_bytes(content)
    return file


def test_the_folder_is_known_by_a_word_in_it_that_only_this_user_reads(files: LargeFiles) -> None:
    path, word = files.share()
    file = Path(path, "shared")
    assert file.read_text() == word
    assert file.stat().st_mode & 0o777 == 0o600
    assert files.folder.stat().st_mode & 0o777 == 0o700
    assert files.share()[1] != word


def test_the_first_value_makes_the_folders_of_all(shared: LargeFiles) -> None:
    assert not shared.keep(NAME, len(CONTENT), GIVEN)
    assert [each.name for each in shared.folder.iterdir() if each.is_dir()] == ["unfinished"]
    given(shared)
    assert shared.keep(NAME, len(CONTENT), GIVEN)
    folders = sorted(each.name for each in shared.folder.iterdir() if each.is_dir() and each.name != "unfinished")
    assert folders == [f"{number:02x}" for number in range(256)]
    assert (shared.folder / "ab").stat().st_mode & 0o777 == 0o700


def test_what_a_client_has_written_becomes_the_value(shared: LargeFiles) -> None:
    file = given(shared)
    assert shared.keep(NAME, len(CONTENT), GIVEN)
    assert read(shared) == CONTENT
    assert not file.exists()


def test_a_value_that_is_kept_already_stays_the_file_that_it_is(shared: LargeFiles) -> None:
    shared.put([CONTENT])
    before = file_of(shared).stat().st_ino
    file = given(shared)
    assert shared.keep(NAME, len(CONTENT), GIVEN)
    assert shared.keep(NAME, 0)
    assert file_of(shared).stat().st_ino == before
    assert not file.exists()


def test_a_second_name_of_the_kept_file_goes_when_it_was_asked_for(shared: LargeFiles) -> None:
    shared.put([CONTENT])
    os.link(file_of(shared), shared.folder / "unfinished" / GIVEN)
    assert shared.keep(NAME, len(CONTENT), GIVEN)
    assert file_of(shared).stat().st_nlink == 1


def test_what_is_not_there_or_of_another_length_is_not_kept(shared: LargeFiles) -> None:
    assert not shared.keep(NAME, len(CONTENT), GIVEN)
    assert not shared.keep(NAME, 0)
    file = given(shared, CONTENT[:-1])
    assert not shared.keep(NAME, len(CONTENT), GIVEN)
    assert file.exists()
    assert not shared.has(NAME)


def test_no_link_of_a_client_leads_out_of_the_folder(shared: LargeFiles, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    (shared.folder / "unfinished" / GIVEN).symlink_to(tmp_path / "elsewhere")
    assert not shared.keep(NAME, len(CONTENT), GIVEN)


def test_asking_for_a_value_restarts_its_grace_period(shared: LargeFiles) -> None:
    shared.put([CONTENT])
    other, _ = shared.put([b"other"])
    assert shared.keep(NAME, len(CONTENT))
    shared.collect(0.0, 1, never, never)
    assert shared.has(NAME)
    assert not shared.has(other)


def test_a_second_name_keeps_a_value_that_is_collected_meanwhile(shared: LargeFiles) -> None:
    shared.put([CONTENT])
    os.link(file_of(shared), shared.folder / "unfinished" / GIVEN)
    shared.collect(0.0, 10, never, never)
    shared.empty(60.0)
    assert not shared.has(NAME)
    assert shared.keep(NAME, len(CONTENT), GIVEN)
    assert read(shared) == CONTENT


def test_a_value_that_was_found_damaged_is_not_taken_for_kept(shared: LargeFiles) -> None:
    shared.put([CONTENT])
    file_of(shared).write_bytes(b"x" * len(CONTENT))
    with pytest.raises(StoreError, match="is damaged"):
        read(shared)
    os.link(file_of(shared), shared.folder / "unfinished" / GIVEN)
    assert not shared.keep(NAME, len(CONTENT), GIVEN)
    (shared.folder / "unfinished" / GIVEN).unlink()
    given(shared)
    assert shared.keep(NAME, len(CONTENT), GIVEN)
    assert read(shared) == CONTENT


def test_what_clients_have_left_goes_after_the_grace(shared: LargeFiles) -> None:
    file = given(shared)
    shared.empty(60.0)
    assert file.exists()
    shared.empty(-1.0)
    assert not file.exists()


def test_what_a_client_has_written_before_a_restart_can_be_asked_for_after_it(shared: LargeFiles) -> None:
    given(shared)
    (shared.folder / "unfinished" / "1").touch()
    later = LargeFiles(shared.folder)
    later.sweep()
    later.share()
    assert [file.name for file in (shared.folder / "unfinished").iterdir()] == [GIVEN]
    assert later.keep(NAME, len(CONTENT), GIVEN)
    assert read(later) == CONTENT


# --- files that become values when something names them ----------------------------------------------


def left(files: LargeFiles, content: bytes = CONTENT) -> Path:
    file = files.folder / "unfinished" / NAME.hex()
    file.write_bytes(content)
    return file


def test_a_file_that_is_named_by_its_sha256_becomes_the_value(shared: LargeFiles) -> None:
    assert not shared.take(NAME)
    file = left(shared)
    assert shared.take(NAME)
    assert read(shared) == CONTENT
    assert not file.exists()
    assert shared.take(NAME)


def test_such_a_file_goes_if_its_value_is_stored_already(shared: LargeFiles) -> None:
    shared.put([CONTENT])
    before = file_of(shared).stat().st_ino
    file = left(shared)
    assert shared.take(NAME)
    assert file_of(shared).stat().st_ino == before
    assert not file.exists()


def test_such_a_file_replaces_a_value_that_was_found_damaged(shared: LargeFiles) -> None:
    shared.put([CONTENT])
    file_of(shared).write_bytes(b"x" * len(CONTENT))
    with pytest.raises(StoreError, match="is damaged"):
        read(shared)
    os.link(file_of(shared), shared.folder / "unfinished" / NAME.hex())
    assert shared.take(NAME)  # a second name of the damaged file
    left(shared)
    assert shared.take(NAME)
    assert read(shared) == CONTENT


def test_a_link_with_such_a_name_leads_nowhere(shared: LargeFiles, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    (shared.folder / "unfinished" / NAME.hex()).symlink_to(tmp_path / "elsewhere")
    assert not shared.take(NAME)


def test_such_a_file_goes_after_the_grace_if_nothing_names_it(shared: LargeFiles) -> None:
    file = left(shared)
    shared.empty(60.0)
    assert file.exists()
    shared.empty(-1.0)
    assert not file.exists()


def test_the_next_broker_takes_such_a_file_because_a_record_may_name_it(shared: LargeFiles) -> None:
    """A power loss may undo the move of a file, and not the commit after it."""
    file = left(shared)
    later = LargeFiles(shared.folder)
    later.sweep()
    assert not file.exists()
    assert read(later) == CONTENT
    later.collect(60.0, 1, never, never)
    assert later.has(NAME)


def test_a_value_that_was_taken_and_not_named_goes_after_the_grace(shared: LargeFiles) -> None:
    left(shared)
    assert shared.take(NAME)
    shared.collect(60.0, 1, never, never)
    assert shared.has(NAME)
    shared.collect(0.0, 1, never, never)
    assert not shared.has(NAME)


def test_every_store_takes_such_a_file_when_a_submission_or_report_is_decided(store: Store) -> None:
    folder, _ = store.share_large()
    (Path(folder) / "unfinished" / NAME.hex()).write_bytes(CONTENT)
    assert store.look(Wanted(large={NAME, bytes(32)})).large == {NAME}
    assert b"".join(store.get_large(NAME) or ()) == CONTENT
