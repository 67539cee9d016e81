"""The log of one attempt: its head and its tail, bounded in bytes, and how much was left out between them.

The rule: nothing here blocks or fails a node, and no text is lost without being counted. Text that a carriage return
overwrites counts as never written, as on a terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
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
#: Bytes of one write, and of its beginning and of its end that are looked at if it is larger.
WRITE_BYTES, WRITE_END_BYTES = 256 << 10, 64 << 10
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
    source: pb.LogSource.ValueType
    text: bytes
    cut: int = 0  #: bytes that were cut off
    level: int = 0
    logger: str = ""

    @property
    def size(self) -> int:
        return RECORD_BYTES + len(self.text)


class _Line:
    """The beginning of a line whose end was not written yet."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.cut = 0
        self.is_new = False  #: something was added since the last flush

    def add(self, data: bytes) -> None:
        self.is_new = True
        if self.text.endswith(b"\r") or b"\r" in data:
            data = self._overwritten(bytes(self.text) + data)
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
        self.cut, self.is_new = 0, False
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
        # A signal handler may print while this thread writes, so the lock is reentrant. It is held while parts are
        # handed over, so that none comes after the outcome of the attempt.
        self._lock = RLock()
        self._lines = {pb.STDOUT: _Line(), pb.STDERR: _Line()}
        self._head: list[_Record] = []
        self._head_room = HEAD_BYTES
        self._tail: deque[_Record] = deque()
        self._tail_size = 0
        self._left_out = 0
        self._sequence = first_sequence - 1
        self._report: pb.NodeReport | None = None
        self._is_closed = False

    # --- for the node ---------------------------------------------------------------------------------

    def write(self, source: int, data: bytes) -> None:
        """Add bytes that were written to stdout or stderr."""
        stream = pb.STDERR if source == pb.STDERR else pb.STDOUT
        with self._lock:
            if self._is_closed:
                return
            if len(data) <= WRITE_BYTES:
                self._add_lines(stream, data)
            else:
                self._add_lines(stream, data[:WRITE_END_BYTES])
                self._lines[stream].cut += len(data) - 2 * WRITE_END_BYTES
                self._end_line(stream)
                self._add_lines(stream, data[-WRITE_END_BYTES:])
        self._wake()

    def add(self, level: int, logger: str, text: bytes) -> None:
        """Add a record of the module logging."""
        with self._lock:
            if not self._is_closed:
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
        with self._lock:
            for source, line in self._lines.items():
                if line.text and not line.is_new:
                    self._end_line(source)
                line.is_new = False
            self._send()
            if self._report is not None:
                self._sink.reported(self._report)
                self._report = None

    def close(self) -> None:
        """Send everything. Later writes are ignored."""
        with self._lock:
            for source, line in self._lines.items():
                if line.text or line.cut:
                    self._end_line(source)
            self._send()
            self._is_closed = True

    @property
    def is_waiting(self) -> bool:
        """True if another flush may send something."""
        lines = any(line.text for line in self._lines.values())
        return not self._is_closed and (lines or bool(self._head or self._tail or self._report))

    # --- lines and records ----------------------------------------------------------------------------

    def _add_lines(self, source: pb.LogSource.ValueType, data: bytes) -> None:
        line = self._lines[source]
        first, *others = data.split(b"\n")
        if first:
            line.add(first)
        for other in others:
            self._end_line(source)
            if other:
                line.add(other)

    def _end_line(self, source: pb.LogSource.ValueType) -> None:
        text, cut = self._lines[source].take()
        self._add(_Record(_now(), source, text, cut))

    def _add(self, record: _Record) -> None:
        if self._head_room > 0:
            self._head.append(record)
            self._head_room -= record.size
            return
        self._tail.append(record)
        self._tail_size += record.size
        while self._tail_size > TAIL_BYTES:
            dropped = self._tail.popleft()
            self._tail_size -= dropped.size
            self._left_out += len(dropped.text) + dropped.cut + 1

    # --- parts ----------------------------------------------------------------------------------------

    def _send(self) -> None:
        for part in self._parts():
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
        messages = [pb.LogRecord(**record._asdict()) for record in records]
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


def _now() -> int:
    return int(time() * 1_000_000)
