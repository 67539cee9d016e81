"""The file of logs: bounded in all and for each attempt, and no reason for anything else to fail."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from dagorama_broker.errors import StoreError
from dagorama_broker.model.logs import KeptPart, LogOwner, LogPart, LogQuery
from dagorama_broker.store.sqlite.log_file import TAIL_BYTES, LogFile

A, B = (LogOwner(bytes([number]) * 16, bytes([number + 100]) * 16, f"m:D.f{number}") for number in (1, 2))
MOST = 1 << 30


def part(
    owner: LogOwner = A, sequence: int = 1, *, records: bytes = b"records", is_head: bool = False, **fields: int
) -> LogPart:
    made = LogPart(owner, 7, 1, sequence, is_head, 0, 1_000, 2_000, len(records), records)
    return made._replace(**fields)  # type: ignore[arg-type]  # all of these are numbers


def read(file: LogFile, asked: LogQuery | None = None) -> list[KeptPart]:
    found: list[KeptPart] = []
    while page := file.read(asked or LogQuery(A.instance), found[-1].id if found else 0):
        found += page
    return found


@pytest.fixture(params=["memory", "file"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> LogFile:
    return LogFile(None if request.param == "memory" else tmp_path / "store.logs", MOST)


def test_parts_are_read_in_the_order_in_which_they_came(file: LogFile) -> None:
    file.add([part(sequence=2, records=b"second"), part(B, records=b"other")])
    file.add([part(sequence=1, records=b"first"), part(sequence=3, left_out=5)])
    assert [(each.records, each.left_out) for each in read(file)] == [(b"second", 0), (b"first", 0), (b"records", 5)]
    (other,) = read(file, LogQuery(B.instance))
    assert (other.node, other.function, other.number, other.records) == (B.node, B.function, 1, b"other")


def test_nodes_attempts_functions_and_times_are_asked_for(file: LogFile) -> None:
    sibling = LogOwner(A.instance, bytes(16), "m:D.g")
    file.add([part(), part(attempt=8, number=2, last=9_000), part(sibling)])
    assert len(read(file)) == 3
    assert [each.node for each in read(file, LogQuery(A.instance, sibling.node))] == [sibling.node]
    assert [each.number for each in read(file, LogQuery(A.instance, number=2))] == [2]
    assert [each.node for each in read(file, LogQuery(A.instance, function="m:D.g"))] == [sibling.node]
    assert [each.number for each in read(file, LogQuery(A.instance, since=5_000))] == [2]


def test_a_part_that_comes_again_is_kept_once(file: LogFile) -> None:
    file.add([part(records=b"once")])
    file.add([part(records=b"again"), part(sequence=2)])
    assert [each.records for each in read(file)] == [b"once", b"records"]


def test_of_a_long_attempt_the_head_and_the_latest_parts_are_kept_and_the_others_are_counted(file: LogFile) -> None:
    file.add([part(sequence=1, is_head=True, records=b"head")])
    for sequence in range(2, 42):
        file.add([part(sequence=sequence, records=bytes([sequence]) * 4_096, left_out=10)])
    head, first, *others = read(file)
    assert head.records == b"head"
    kept = 1 + len(others)
    assert kept == TAIL_BYTES // 4_096
    assert others[-1].records == bytes([41]) * 4_096
    assert first.left_out == (40 - kept) * (4_096 + 10) + 10


def test_an_attempt_whose_only_part_is_large_keeps_it(file: LogFile) -> None:
    file.add([part(sequence=2, records=b"x" * 2 * TAIL_BYTES), part(sequence=3, records=b"y" * 2 * TAIL_BYTES)])
    assert [each.records[:1] for each in read(file)] == [b"y"]


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_oldest_parts_go_when_there_are_too_many_bytes(tmp_path: Path, in_memory: bool) -> None:
    most = 2 << 20
    file = LogFile(None if in_memory else tmp_path / "store.logs", most)
    for number in range(200):
        owner = A._replace(node=number.to_bytes(16, "big"))
        file.add([part(owner, attempt=number, records=os.urandom(32 << 10))])
    kept = [int.from_bytes(each.node, "big") for each in read(file)]
    assert kept == list(range(200 - len(kept), 200))
    assert 0 < len(kept) * (32 << 10) <= most
    if not in_memory:
        assert (tmp_path / "store.logs").stat().st_size < most * 1.2


def test_a_lower_bound_holds_after_the_next_part(tmp_path: Path) -> None:
    path = tmp_path / "store.logs"
    file = LogFile(path, MOST)
    file.add([part(attempt=number, records=os.urandom(32 << 10)) for number in range(100)])
    file.close()
    lower = LogFile(path, 1 << 20)
    lower.add([part(attempt=1_000, records=b"latest")])
    assert read(lower)[-1].records == b"latest"
    lower.close()
    assert path.stat().st_size <= 1 << 20


def test_logs_of_an_instance_are_removed_and_others_stay(file: LogFile) -> None:
    file.remove([A.instance])
    file.add([part(), part(B)])
    assert file.instances(b"", 10) == [A.instance, B.instance]
    assert file.instances(A.instance, 10) == [B.instance]
    file.remove([A.instance])
    assert read(file) == []
    assert len(read(file, LogQuery(B.instance))) == 1


def test_logs_survive_a_restart_and_are_private(tmp_path: Path) -> None:
    path = tmp_path / "store.logs"
    file = LogFile(path, MOST)
    file.add([part()])
    file.close()
    assert len(read(LogFile(path, MOST))) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_made_before_something_is_written(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "store.logs", MOST)
    file.remove([A.instance])
    assert read(file) == []
    assert file.instances(b"", 10) == []
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "store.logs"
    path.write_bytes(b"this is not a database" * 1_000)
    file = LogFile(path, MOST)
    with pytest.raises(StoreError, match=r"store\.logs: it is damaged.*it is now .*store\.logs\.damaged"):
        file.add([part()])
    file.add([part()])
    assert len(read(file)) == 1
    assert (tmp_path / "store.logs.damaged").read_bytes().startswith(b"this is not")


def test_a_file_that_is_damaged_while_it_is_open_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "store.logs"
    file = LogFile(path, MOST)
    file.add([part(attempt=number, records=os.urandom(10_000)) for number in range(100)])
    file.close()
    with path.open("r+b") as raw:
        raw.seek(4096)
        raw.write(os.urandom(20 * 4096))
    with pytest.raises(StoreError, match=r"is now .*\.damaged"):
        read(file)
    file.add([part()])
    assert len(read(file)) == 1


def test_a_locked_file_is_an_error_of_one_sentence_and_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagorama_broker.store.sqlite.log_file.BUSY_SECONDS", 0.0)
    path = tmp_path / "store.logs"
    file = LogFile(path, MOST)
    file.add([part()])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="it is locked by another program"):
            file.add([part(sequence=2)])
    file.add([part(sequence=2)])
    assert len(read(file)) == 2


def test_a_file_of_another_program_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.logs"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (a)")
        other.commit()
    with pytest.raises(StoreError, match="some other program's SQLite file: move it away"):
        LogFile(path, MOST).add([part()])
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
