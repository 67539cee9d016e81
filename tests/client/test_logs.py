"""Log records as a client reads them from the parts that the broker sends."""

from __future__ import annotations

from uuid import UUID

from dagorama.api import broker_pb2 as pb
from dagorama.client.logs import records_of
from dagorama.models.log_record import LogRecord

NODE = UUID(int=7)


def piece(*records: pb.LogRecord, left_out: int = 0) -> pb.LogPiece:
    body = pb.LogRecords(record=records).SerializeToString()
    return pb.LogPiece(node=NODE.bytes, function="m:D.f", attempt=2, left_out=left_out, records=body)


def read(found: pb.LogPiece, since: float = 0.0) -> list[LogRecord]:
    return list(records_of(found, since))


def test_a_record_has_its_node_and_what_it_says() -> None:
    made = pb.LogRecord(time=1_500_000, source=pb.LOGGING, level=30, logger="app", text=b"careful")
    (record,) = read(piece(made))
    assert record == LogRecord(NODE, "m:D.f", 2, 1.5, "logging", b"careful", 0, 30, "app")
    assert record.text == "careful"


def test_bytes_that_are_no_text_are_shown_as_escapes_and_what_was_cut_is_said() -> None:
    (record,) = read(piece(pb.LogRecord(time=1, text=b"\xff ok", cut=12_345)))
    assert record.data == b"\xff ok"
    assert record.text == "\\xff ok ... 12,345 bytes cut off"


def test_a_mark_says_what_is_missing_before_a_part() -> None:
    mark, record = read(piece(pb.LogRecord(time=1, text=b"after"), left_out=1_204_311))
    assert (mark.stream, mark.left_out, mark.text) == ("left out", 1_204_311, "... 1,204,311 bytes left out ...")
    assert record.text == "after"


def test_records_before_a_time_are_left_out() -> None:
    old, new = pb.LogRecord(time=1_000_000, text=b"old"), pb.LogRecord(time=3_000_000, text=b"new")
    assert [record.text for record in read(piece(old, new), since=2.0)] == ["new"]


def test_a_part_that_is_no_log_is_named_and_ends_nothing() -> None:
    broken = pb.LogPiece(node=NODE.bytes, function="m:D.f", attempt=1, records=b"\xff\xff")
    (record,) = read(broken)
    assert "cannot be read" in record.text


def test_a_stream_of_a_later_version_has_a_name() -> None:
    record = pb.LogRecord(time=1, text=b"x")
    record.source = 9  # type: ignore[assignment]  # a number that this version does not know
    assert read(piece(record))[0].stream == "stream 9"
