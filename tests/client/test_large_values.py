"""Large values of a client: files in the broker's folder where that is in sight, messages where it is not."""

import os
from hashlib import sha256
from pathlib import Path
from threading import Thread

import pytest

from dagorama.api import broker_pb2
from dagorama.client.large_values import broker_values
from dagorama.client.shared_files import SharedFiles, mapped
from dagorama.errors import SettingsError
from dagorama.values.hashing import Hashing
from dagorama.values.out_of_band import Verified
from tests.support.recording_broker import RecordingBroker

DATA = b"0123456789" * 1000
NAME = sha256(DATA).digest()


@pytest.fixture(params=[len(DATA) + 1, 1], ids=["hashed before", "hashed beside"])
def hashing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are hashed before they are written, or by a thread meanwhile."""
    monkeypatch.setattr("dagorama.values.hashing.BESIDE", request.param)


@pytest.fixture
def folder(broker: RecordingBroker, tmp_path: Path) -> Path:
    """Of the broker, which says where it is."""
    made = tmp_path / "values"
    (made / "unfinished").mkdir(mode=0o700, parents=True)
    made.chmod(0o700)
    (made / "shared").write_text("the word")
    broker.folder = broker_pb2.GetSharedFolderReply(path=str(made), nonce="the word")
    return made


def file_of(folder: Path) -> Path:
    return folder / NAME.hex()[:2] / NAME.hex()


def bytes_of(digest: bytes) -> bytes:
    found = broker_values().get(digest)
    return bytes(found.data if isinstance(found, Verified) else found)


@pytest.mark.usefixtures("hashing")
def test_a_value_is_written_where_the_broker_keeps_it_and_read_there(broker: RecordingBroker, folder: Path) -> None:
    assert broker_values().put(DATA) == NAME
    assert file_of(folder).read_bytes() == DATA
    assert file_of(folder).stat().st_mode & 0o777 == 0o600
    assert (broker.kept[0].sha256, broker.kept[0].length) == (NAME, len(DATA))
    assert bytes_of(NAME) == DATA
    assert not broker.uploads
    assert not list((folder / "unfinished").iterdir())


def test_what_is_kept_already_is_not_written_again(broker: RecordingBroker, folder: Path) -> None:
    broker_values().put(DATA)
    before = file_of(folder).stat()
    broker_values().put(DATA)
    assert (file_of(folder).stat().st_ino, file_of(folder).stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(broker.kept) == 2


class LateHashing(Hashing):
    """It is known after the first piece was written."""

    looks = 0

    @property
    def is_done(self) -> bool:
        self.looks += 1
        return self.looks > 1


def test_what_turns_out_to_be_kept_already_is_not_written_to_its_end(
    broker: RecordingBroker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker_values().put(DATA)
    monkeypatch.setattr("dagorama.client.shared_files.PIECE", 1000)
    name = SharedFiles(folder).write(DATA, LateHashing(DATA))
    assert (folder / "unfinished" / name).samefile(file_of(folder))
    assert len(list((folder / "unfinished").iterdir())) == 1


def test_a_value_is_written_in_pieces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama.client.shared_files.PIECE", 999)
    name = SharedFiles(folder).write(DATA, LateHashing(DATA))
    assert (folder / "unfinished" / name).read_bytes() == DATA


def test_a_value_is_hashed_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("dagorama.values.hashing.BESIDE", 1)
    monkeypatch.setattr(Thread, "start", full)
    assert Hashing(DATA).digest() == NAME


def test_a_read_value_may_be_written_to_without_effect_on_others(broker: RecordingBroker, folder: Path) -> None:
    broker_values().put(DATA)
    found = broker_values().get(NAME)
    assert isinstance(found, Verified)
    memoryview(found.data)[:3] = b"new"
    assert bytes_of(NAME) == DATA


REASONS = ["another word", "no file", "no folder", "others may enter", "not shared", "unknown"]


@pytest.mark.parametrize("reason", REASONS)
def test_a_folder_that_is_not_surely_the_brokers_is_left_alone(
    broker: RecordingBroker, folder: Path, reason: str
) -> None:
    assert broker.folder is not None
    if reason == "another word":
        broker.folder.nonce = "another"
    elif reason == "no file":
        (folder / "shared").unlink()
    elif reason == "no folder":
        broker.folder.path = str(folder / "other")
    elif reason == "others may enter":
        folder.chmod(0o750)
    else:
        broker.folder = broker_pb2.GetSharedFolderReply() if reason == "not shared" else None
    assert broker_values().put(DATA) == NAME
    assert (broker.uploads, broker.large, broker.kept) == (1, {NAME: DATA}, [])
    assert bytes_of(NAME) == DATA


def test_files_are_not_shared_where_the_setting_says_so(
    broker: RecordingBroker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGORAMA_SHARED_FILES", "0")
    broker_values().put(DATA)
    assert broker.large == {NAME: DATA}
    monkeypatch.setenv("DAGORAMA_SHARED_FILES", "perhaps")
    monkeypatch.setenv("DAGORAMA_HOST", "localhost")
    with pytest.raises(SettingsError, match="DAGORAMA_SHARED_FILES is 'perhaps'"):
        broker_values().put(DATA)


def test_what_the_broker_does_not_take_from_its_folder_is_sent(broker: RecordingBroker, folder: Path) -> None:
    broker.keeps = False
    assert broker_values().put(DATA) == NAME
    assert broker.large == {NAME: DATA}
    assert not list((folder / "unfinished").iterdir())


def test_a_value_is_sent_if_the_folder_cannot_be_written_to(broker: RecordingBroker, folder: Path) -> None:
    (folder / "unfinished").rmdir()
    broker_values().put(DATA)
    assert broker.large == {NAME: DATA}


@pytest.mark.parametrize("change", ["gone", "other bytes", "empty"])
def test_a_file_that_is_not_what_its_name_says_is_asked_for(broker: RecordingBroker, folder: Path, change: str) -> None:
    broker_values().put(DATA)
    assert bytes_of(NAME) == DATA
    broker.large[NAME] = DATA
    if change == "gone":
        file_of(folder).unlink()
    else:
        file_of(folder).write_bytes(b"x" * len(DATA) if change == "other bytes" else b"")
    assert bytes_of(NAME) == DATA


def test_a_file_is_compared_once_as_long_as_nothing_has_changed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "value"
    file.write_bytes(DATA)
    assert mapped(file, NAME) is not None
    monkeypatch.setattr("dagorama.client.shared_files.sha256", None)
    assert mapped(file, NAME) is not None
    monkeypatch.undo()
    file.write_bytes(DATA[:-1] + b"!")
    os.utime(file, ns=(file.stat().st_atime_ns, 0))
    assert mapped(file, NAME) is None


def test_a_write_that_fails_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        SharedFiles(folder).write(DATA, Hashing(DATA))
    assert not list((folder / "unfinished").iterdir())


def test_in_messages_too_what_is_kept_already_is_not_sent_again(broker: RecordingBroker) -> None:
    assert broker_values().put(DATA) == broker_values().put(DATA) == NAME
    assert broker.uploads == 1


# --- values that a submission names ------------------------------------------------------------------


def test_a_value_for_a_submission_is_left_under_its_name(broker: RecordingBroker, folder: Path) -> None:
    assert broker.folder is not None
    broker.folder.takes_named = True
    assert broker_values().leave(DATA) == NAME
    assert [file.name for file in (folder / "unfinished").iterdir()] == [NAME.hex()]
    assert (folder / "unfinished" / NAME.hex()).read_bytes() == DATA
    assert not broker.kept


def test_a_value_that_exists_is_left_under_a_second_name(broker: RecordingBroker, folder: Path) -> None:
    assert broker.folder is not None
    broker.folder.takes_named = True
    broker_values().put(DATA)
    for _ in range(2):
        assert broker_values().leave(DATA) == NAME
        assert [file.name for file in (folder / "unfinished").iterdir()] == [NAME.hex()]
        assert (folder / "unfinished" / NAME.hex()).samefile(file_of(folder))


def test_an_earlier_broker_is_asked_to_keep_each_value(broker: RecordingBroker, folder: Path) -> None:
    assert broker_values().leave(DATA) == NAME
    assert file_of(folder).read_bytes() == DATA
    assert len(broker.kept) == 1
    assert not list((folder / "unfinished").iterdir())


def test_a_value_for_a_submission_is_sent_if_it_cannot_be_left(broker: RecordingBroker, folder: Path) -> None:
    assert broker.folder is not None
    broker.folder.takes_named = True
    (folder / "unfinished").rmdir()
    assert broker_values().leave(DATA) == NAME
    assert broker.large == {NAME: DATA}


def test_a_value_that_was_left_with_an_earlier_broker_is_sent_to_the_next(
    broker: RecordingBroker, folder: Path
) -> None:
    assert broker.folder is not None
    broker.folder.takes_named = True
    broker_values().leave(DATA)
    assert not broker_values().send_left([sha256(b"other").digest()])
    assert broker_values().send_left([NAME])
    assert broker.large == {NAME: DATA}
    assert not list((folder / "unfinished").iterdir())
    assert not broker_values().send_left([NAME])
