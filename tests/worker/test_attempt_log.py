"""The log of one attempt: bounded, and nothing goes missing without being counted."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import MESSAGE_LIMIT
from dagorama.worker import attempt_log
from dagorama.worker.attempt_log import HEAD_BYTES, TAIL_BYTES, TEXT_BYTES, AttemptLog

CALL = SimpleNamespace(node=3, attempt=9, instance=bytes(16), id=bytes(16), work=SimpleNamespace(name="m:D.f"))
OUT, ERR = pb.STDOUT, pb.STDERR


class Line(NamedTuple):
    text: bytes
    cut: int = 0


class Kept:
    """Where the parts go."""

    def __init__(self) -> None:
        self.parts: list[pb.NodeLog] = []
        self.reports: list[pb.NodeReport] = []
        self.log = AttemptLog(CALL, 1, self, lambda: None)

    def logged(self, log: pb.NodeLog) -> None:
        self.parts.append(log)

    def reported(self, report: pb.NodeReport) -> None:
        self.reports.append(report)

    @property
    def records(self) -> list[pb.LogRecord]:
        return [record for each in self.parts for record in pb.LogRecords.FromString(each.records).record]

    @property
    def lines(self) -> list[Line]:
        return [Line(record.text, record.cut) for record in self.records]

    @property
    def left_out(self) -> int:
        return sum(each.left_out for each in self.parts)

    def closed(self) -> list[Line]:
        self.log.close()
        return self.lines


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_lines_are_put_together_from_what_is_written(kept: Kept) -> None:
    for piece in (b"one", b"\n", b"two ", b"words\nthree\n", b"\n", b"four"):
        kept.log.write(OUT, piece)
    assert [line.text for line in kept.closed()] == [b"one", b"two words", b"three", b"", b"four"]


def test_streams_do_not_mix_within_a_line(kept: Kept) -> None:
    kept.log.write(OUT, b"out ")
    kept.log.write(ERR, b"err\n")
    kept.log.write(OUT, b"put\n")
    kept.closed()
    assert [(record.source, record.text) for record in kept.records] == [(ERR, b"err"), (OUT, b"out put")]


def test_records_have_a_time_and_those_of_logging_a_level(kept: Kept) -> None:
    kept.log.add(30, "app.mine", b"careful\nand again")
    kept.closed()
    (record,) = kept.records
    assert (record.source, record.level, record.logger) == (pb.LOGGING, 30, "app.mine")
    assert record.text == b"careful\nand again"
    assert record.time > 1e15
    (part,) = kept.parts
    assert (part.node, part.attempt, part.number, part.sequence, part.head) == (3, 9, 1, 1, True)
    assert (part.first, part.last, part.size) == (record.time, record.time, len(record.text) + 1)


def test_bytes_that_are_no_text_and_escape_sequences_are_kept(kept: Kept) -> None:
    kept.log.write(OUT, b"\xff\xfe\x00 \x1b[31mred\x1b[0m\n")
    assert kept.closed() == [Line(b"\xff\xfe\x00 \x1b[31mred\x1b[0m")]


def test_a_carriage_return_overwrites_the_line_as_on_a_terminal(kept: Kept) -> None:
    for percent in range(0, 101, 10):
        kept.log.write(ERR, b"\r%d %%" % percent)
    kept.log.write(ERR, b"\nunder windows\r\n")
    kept.log.write(ERR, b"split\r")
    kept.log.write(ERR, b"\n")
    assert [line.text for line in kept.closed()] == [b"100 %", b"under windows", b"split"]


def test_a_line_that_is_too_long_is_cut_and_says_how_much(kept: Kept) -> None:
    for _ in range(10):
        kept.log.write(OUT, b"x" * TEXT_BYTES)
    kept.log.write(OUT, b"\nnext\n")
    assert kept.closed() == [Line(b"x" * TEXT_BYTES, 9 * TEXT_BYTES), Line(b"next")]
    kept.log.add(20, "a", b"never after the end")
    assert len(kept.lines) == 2


def test_of_much_output_head_and_tail_are_kept_and_the_rest_is_counted(kept: Kept) -> None:
    written = 0
    for number in range(100_000):
        line = b"line %d of a long story that nobody will ever read to its end\n" % number
        kept.log.write(OUT, line)
        written += len(line)
    lines = kept.closed()
    assert written > 6_000_000
    assert lines[0].text.startswith(b"line 0 of")
    assert lines[-1].text.startswith(b"line 99999 of")
    sizes = [sum(len(record.text) for record in pb.LogRecords.FromString(part.records).record) for part in kept.parts]
    assert [part.head for part in kept.parts] == [True, False]
    assert HEAD_BYTES / 2 < sizes[0] <= HEAD_BYTES
    assert TAIL_BYTES / 2 < sizes[1] <= TAIL_BYTES
    assert sum(part.ByteSize() for part in kept.parts) < MESSAGE_LIMIT / 10
    assert kept.left_out + sum(len(line.text) + 1 for line in lines) == written


def test_many_empty_lines_are_bounded_too(kept: Kept) -> None:
    kept.log.write(OUT, b"\n" * 200_000)
    assert len(kept.closed()) < 5_000
    assert kept.left_out + len(kept.lines) == 200_000


def test_one_huge_write_is_looked_at_only_at_both_ends(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"first\n" + b"y" * (50 << 20) + b"\nlast\n"
    kept.log.write(OUT, data)
    lines = kept.closed()
    assert lines[0].text == b"first"
    assert lines[-1].text == b"last"
    counted = sum(len(line.text) + line.cut for line in lines) + kept.left_out
    assert abs(counted - len(data)) < 10


def test_a_flush_sends_what_is_new_and_waits_for_the_end_of_a_line_that_grows(kept: Kept) -> None:
    kept.log.write(OUT, b"done\nhalf")
    kept.log.flush()
    assert [line.text for line in kept.lines] == [b"done"]
    assert kept.log.is_waiting
    kept.log.flush()  # nothing was added to the half of the line: it is a prompt
    assert [line.text for line in kept.lines] == [b"done", b"half"]
    kept.log.flush()
    assert not kept.log.is_waiting
    assert [part.sequence for part in kept.parts] == [1, 2]


def test_each_flush_has_room_for_another_tail(kept: Kept) -> None:
    for _ in range(5):
        kept.log.write(OUT, b"z" * 1_000 + b"\n" + b"".join(b"%d\n" % number for number in range(100_000)))
        kept.log.flush()
    assert all(part.ByteSize() < HEAD_BYTES + TAIL_BYTES for part in kept.parts)
    assert len([part for part in kept.parts if part.left_out]) == 5


def test_after_the_end_nothing_is_taken(kept: Kept) -> None:
    kept.log.close()
    kept.log.write(OUT, b"late\n")
    kept.log.report("late", 1.0)
    kept.log.flush()
    assert not kept.parts
    assert not kept.reports


def test_only_the_latest_report_is_sent_and_it_is_bounded(kept: Kept) -> None:
    kept.log.report("first", None)
    kept.log.report("x" * 10_000 + "\udcff", 0.5)
    kept.log.flush()
    kept.log.flush()
    (report,) = kept.reports
    assert (report.key, report.attempt, report.fraction) == (3, 9, 0.5)
    assert report.message == "x" * attempt_log.MESSAGE_CHARACTERS


def test_threads_that_write_side_by_side_lose_nothing(kept: Kept) -> None:
    def write() -> None:
        for _ in range(200):
            kept.log.write(OUT, b"a line\n")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept.log.flush()
    assert len(kept.closed()) == 800


def test_a_write_does_not_wait_for_a_worker_that_cannot_send(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def logged(log: pb.NodeLog) -> None:
        begun.set()
        assert may_end.wait(60)
        kept.parts.append(log)

    monkeypatch.setattr(kept, "logged", logged)
    kept.log.write(OUT, b"first\n")
    flushing = threading.Thread(target=kept.log.flush)
    flushing.start()
    assert begun.wait(60)
    kept.log.write(OUT, b"second\n")
    kept.log.add(20, "a", b"third")
    closing = threading.Thread(target=kept.log.close)
    closing.start()
    assert not kept.parts
    may_end.set()
    flushing.join()
    closing.join()
    assert [line.text for line in kept.lines] == [b"first", b"second", b"third"]
