"""The log of one attempt: its head and its tail, bounded in bytes, and how much was left out between them.

The rule: nothing here blocks or fails a node, and no text is lost without being counted. Text that a carriage return
overwrites counts as never written, as on a terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from threading import RLock
from time import time
from typing import NamedTuple, Protocol

from dagorama.api import broker_pb2 as pb

#: Bytes of an attempt that are kept: its first records, and its latest ones since the last part that was sent.
HEAD_BYTES, TAIL_BYTES = 16 << 10, 48 << 10
#: Bytes that a record adds to its text, so that many empty lines are bounded too.
RECORD_BYTES = 24
#: Bytes of one record; the rest of a longer line is cut off and counted.
TEXT_BYTES = 8 << 10
#: Bytes of writes that are looked at together, and of their beginning and end that are looked at if they are more.
WRITE_BYTES, WRITE_END_BYTES = 256 << 10, 64 << 10
#: Bytes of writes that gather before they are split into lines, and the bytes that each write adds.
GATHERED_BYTES, GATHERED_WRITE_BYTES = 32 << 10, 16
#: Writes to the same stream within such a part of a second are looked at together, and their lines have one time.
TIME_UNIT_S = 0.01
NAME_CHARACTERS = 200
MESSAGE_CHARACTERS = 500


class Attempt(Protocol):
    """The attempt that a log belongs to, by the broker's names."""

    @property
    def node(self) -> int: ...
    @property
    def attempt(self) -> int: ...


class Sink(Protocol):
    """Where parts of logs go: the outbox."""

    def logged(self, log: pb.NodeLog) -> None: ...
    def reported(self, report: pb.NodeReport) -> None: ...


class _Record(NamedTuple):
    time: int  #: microseconds since 1970
    source: int  #: a LogSource
    text: bytes
    cut: int = 0  #: bytes that were cut off
    level: int = 0
    logger: str = ""


class _Line:
    """The beginning of a line whose end was not written yet."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.cut = 0
        self.is_new = False  #: something was added since the last flush
        self._is_returned = False  # it ends with a carriage return

    def add(self, data: bytes) -> None:
        self.is_new = True
        if self._is_returned or b"\r" in data:
            data = self._overwritten(bytes(self.text) + data)
            self._is_returned = data.endswith(b"\r")
        room = max(0, TEXT_BYTES - len(self.text))
        self.text += data[:room]
        self.cut += max(0, len(data) - room)

    def _overwritten(self, line: bytes) -> bytes:
        """Return what a terminal would still show of the line, which is empty then."""
        self.text.clear()
        self.cut = 0
        end = b"\r" if line.endswith(b"\r") else b""  # a newline may follow
        return line.rstrip(b"\r").rpartition(b"\r")[2] + end

    def take(self) -> tuple[bytes, int]:
        """Return the text and how much of it was cut, and begin a new line."""
        text, cut = bytes(self.text).removesuffix(b"\r"), self.cut
        self.text.clear()
        self.cut, self.is_new, self._is_returned = 0, False, False
        return text, cut


class AttemptLog:
    """The output of an attempt: what it prints, logs and reports. Any thread may write to it."""

    def __init__(
        self, attempt: Attempt, number: int, sink: Sink, wake: Callable[[], None], first_sequence: int = 1
    ) -> None:
        """Call `wake` whenever there is something to flush; `number` is the attempt's, from 1, or 0 if unknown."""
        self._attempt, self._number = attempt, number
        self._sink = sink
        self._wake = wake
        # A signal handler may print while this thread writes, so the lock is reentrant. Another one is held while parts
        # are handed over, which may take long: none comes after the outcome of the attempt, and no write waits for it.
        self._lock, self._sending = RLock(), RLock()
        self._lines = {int(pb.STDOUT): _Line(), int(pb.STDERR): _Line()}
        self._gathered: list[tuple[int, int, bytes | str]] = []  # units of time, sources and texts
        self._gathered_size = 0
        self._is_woken = False  # since the last flush
        self._head: list[_Record] = []
        self._head_room = HEAD_BYTES
        self._tail: deque[_Record] = deque()
        self._tail_size = 0
        self._left_out = 0
        self._sequence = first_sequence - 1
        self._report: pb.NodeReport | None = None
        self._is_closed = False

    # --- for the node ---------------------------------------------------------------------------------

    def write(self, source: int, data: bytes | str) -> None:
        """Add what was written to stdout or stderr. print() calls this for each of its parts and for the newline."""
        with self._lock:
            if self._is_closed:
                return
            self._gathered.append((int(time() / TIME_UNIT_S), source, data))
            self._gathered_size += GATHERED_WRITE_BYTES + len(data)
            if self._gathered_size > GATHERED_BYTES:
                self._split()
            if not self._is_woken:
                self._is_woken = True
                self._wake()

    def add(self, level: int, logger: str, text: bytes) -> None:
        """Add a record of the module logging."""
        with self._lock:
            if not self._is_closed:
                self._split()
                cut = max(0, len(text) - TEXT_BYTES)
                name = logger[:NAME_CHARACTERS]
                self._add(_Record(_now(), pb.LOGGING, text[:TEXT_BYTES], cut, max(0, level), name))
        self._wake()

    def report(self, message: str, fraction: float | None) -> None:
        """Replace what the attempt says about its progress."""
        clean = message[:MESSAGE_CHARACTERS].encode("utf-8", "backslashreplace").decode()
        found = pb.NodeReport(key=self._attempt.node, attempt=self._attempt.attempt, message=clean, fraction=fraction)
        found.time = time()
        with self._lock:
            if not self._is_closed:
                self._report = found
        self._wake()

    # --- for the worker -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what was added since the last flush; a line without an end only if nothing was added to it since."""
        with self._sending:
            with self._lock:
                self._is_woken = False
                self._split()
                for source, line in self._lines.items():
                    if line.text and not line.is_new:
                        self._end_line(source, _now())
                    line.is_new = False
                parts, report, self._report = list(self._parts()), self._report, None
            self._send(parts)
            if report is not None:
                self._sink.reported(report)

    def close(self) -> None:
        """Send everything. Later writes are ignored."""
        with self._sending:
            with self._lock:
                self._split()
                for source, line in self._lines.items():
                    if line.text or line.cut:
                        self._end_line(source, _now())
                self._is_closed = True
                parts, self._report = list(self._parts()), None
            self._send(parts)

    @property
    def is_waiting(self) -> bool:
        """True if another flush may send something."""
        lines = self._gathered or any(line.text for line in self._lines.values())
        return not self._is_closed and bool(lines or self._head or self._tail or self._report)

    # --- lines and records ----------------------------------------------------------------------------

    def _split(self) -> None:
        """Split what has gathered into lines."""
        gathered, self._gathered, self._gathered_size = self._gathered, [], 0
        for (unit, source), writes in groupby(gathered, key=itemgetter(0, 1)):
            data = b"".join(encoded(text) if isinstance(text, str) else text for _, _, text in writes)
            at = int(unit * TIME_UNIT_S * 1_000_000)
            if len(data) <= WRITE_BYTES:
                self._add_lines(source, data, at)
            else:
                self._add_lines(source, data[:WRITE_END_BYTES], at)
                self._lines[source].cut += len(data) - 2 * WRITE_END_BYTES
                self._end_line(source, at)
                self._add_lines(source, data[-WRITE_END_BYTES:], at)

    def _add_lines(self, source: int, data: bytes, at: int) -> None:
        first, *others = data.split(b"\n")
        if first:
            self._lines[source].add(first)
        if not others:
            return
        self._end_line(source, at)
        for whole in others[:-1]:
            if len(whole) <= TEXT_BYTES and b"\r" not in whole:
                self._add(_Record(at, source, whole))
            else:
                self._lines[source].add(whole)
                self._end_line(source, at)
        if others[-1]:
            self._lines[source].add(others[-1])

    def _end_line(self, source: int, at: int) -> None:
        text, cut = self._lines[source].take()
        self._add(_Record(at, source, text, cut))

    def _add(self, record: _Record) -> None:
        size = RECORD_BYTES + len(record.text)
        if self._head_room > 0:
            self._head.append(record)
            self._head_room -= size
            return
        self._tail.append(record)
        self._tail_size += size
        while self._tail_size > TAIL_BYTES:
            dropped = self._tail.popleft()
            self._tail_size -= RECORD_BYTES + len(dropped.text)
            self._left_out += len(dropped.text) + dropped.cut + 1

    # --- parts ----------------------------------------------------------------------------------------

    def _send(self, parts: Iterable[pb.NodeLog]) -> None:
        for part in parts:
            self._sink.logged(part)

    def _parts(self) -> Iterator[pb.NodeLog]:
        head, self._head = self._head, []
        tail, self._tail = self._tail, deque()
        left_out, self._left_out = self._left_out, 0
        self._tail_size = 0
        if head:
            yield self._part(list(head), head=True)
        if tail:
            yield self._part(list(tail), left_out=left_out)

    def _part(self, records: list[_Record], *, head: bool = False, left_out: int = 0) -> pb.NodeLog:
        self._sequence += 1
        messages = [
            pb.LogRecord(
                time=record.time,
                source=pb.LogSource.ValueType(record.source),
                text=record.text,
                cut=record.cut,
                level=record.level,
                logger=record.logger,
            )
            for record in records
        ]
        return pb.NodeLog(
            node=self._attempt.node,
            attempt=self._attempt.attempt,
            number=self._number,
            sequence=self._sequence,
            head=head,
            left_out=left_out,
            first=records[0].time,
            last=records[-1].time,
            size=sum(len(record.text) + 1 for record in records),
            records=pb.LogRecords(record=messages).SerializeToString(),
        )


def encoded(text: str) -> bytes:
    """Return the text in UTF-8, with the bytes that were read into it with surrogateescape."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def _now() -> int:
    return int(time() * 1_000_000)
