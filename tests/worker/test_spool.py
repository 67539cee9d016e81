"""The spool keeps what is in use, and of the rest what was used last."""

from pathlib import Path

import grpc.aio
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama.client.shared_files import SharedFiles
from dagorama.errors import RequestRejected, ValueNotReadable
from dagorama.worker.spool_files import SpoolValues
from dagorama.worker.supervisor.spool import Spool, remove_folder, spool_folder
from dagorama.worker.supervisor.transfers import Transfers


def test_what_one_process_puts_another_gets(tmp_path: Path) -> None:
    digest = SpoolValues(tmp_path).put(b"value" * 100)
    assert bytes(SpoolValues(tmp_path).get(digest).data) == b"value" * 100


def test_a_value_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueNotReadable):
        SpoolValues(tmp_path).get(b"x" * 32)


def test_more_than_one_value_may_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagorama.client.chunks.VALUE_LIMIT", 10)
    with pytest.raises(RequestRejected):
        SpoolValues(tmp_path).put(bytes(11))
    assert not list(tmp_path.iterdir())


def test_a_child_leaves_with_the_broker_what_the_broker_is_to_keep(tmp_path: Path) -> None:
    folder, spool, values = tmp_path / "values", Spool(tmp_path / "spool"), SpoolValues(tmp_path / "spool")
    (folder / "unfinished").mkdir(parents=True)
    spool.show(SharedFiles(folder))
    digest = values.put(b"value" * 100)
    assert values.put(b"value" * 100) == digest
    [file] = (folder / "unfinished").iterdir()
    assert file.read_bytes() == b"value" * 100
    assert digest not in spool
    assert values.take_waiting([digest, b"another's"]) == {digest: bytes.fromhex(file.name)}
    assert not values.take_waiting([digest])


def test_a_child_puts_into_the_spool_where_the_broker_is_out_of_sight_or_out_of_room(tmp_path: Path) -> None:
    spool, values = Spool(tmp_path / "spool"), SpoolValues(tmp_path / "spool")
    spool.show(SharedFiles(tmp_path / "gone"))
    first = values.put(b"first" * 100)
    spool.show(None)
    second = values.put(b"second" * 100)
    assert first in spool
    assert second in spool


def put(folder: Path, letter: str) -> bytes:
    return SpoolValues(folder).put(letter.encode() * 100)


def test_the_value_longest_unused_goes_first(tmp_path: Path) -> None:
    spool = Spool(tmp_path, room=250)
    a, b, c = (put(tmp_path, letter) for letter in "abc")
    assert a in spool
    assert b in spool
    assert a in spool
    assert c in spool
    spool.release([])
    assert (a in spool, b in spool, c in spool) == (True, False, True)


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path, room=50)
    a = put(tmp_path, "a")
    spool.hold([a])
    spool.hold([a])
    assert a in spool
    spool.release([a])
    assert a in spool
    spool.release([a])
    assert a not in spool


def test_what_a_dead_child_left_is_counted_or_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path, room=50)
    whole = put(tmp_path, "a")
    partial = spool.path(b"p" * 32).with_suffix(".77-1")
    partial.write_bytes(b"half")
    spool.count_unreported(pid=77)
    assert whole not in spool
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("takes_named", [True, False])
async def test_what_a_child_has_written_waits_for_the_report_if_the_broker_takes_it(
    tmp_path: Path, takes_named: bool
) -> None:
    folder = tmp_path / "values"
    (folder / "unfinished").mkdir(parents=True)
    folder.chmod(0o700)
    (folder / "shared").write_text("word")
    spool, values = Spool(tmp_path / "spool"), SpoolValues(tmp_path / "spool")
    transfers = Transfers(BrokerStub(grpc.aio.insecure_channel("localhost:1")), spool)
    transfers.share(pb.GetSharedFolderReply(path=str(folder), nonce="word", takes_named=takes_named))
    digest = values.put(b"value" * 100)
    [name] = values.take_waiting([digest]).values()
    assert transfers.is_left(name) is takes_named
    assert not transfers.is_left(b"")  # it is not in the broker's folder
    assert [file.name for file in (folder / "unfinished").iterdir()] == [(digest if takes_named else name).hex()]


# --- the folder of a worker -------------------------------------------------------------------------------


def test_a_worker_without_a_temporary_folder_still_gets_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    folder = spool_folder()
    assert folder.parent == tmp_path / "gone"
    remove_folder(folder)
