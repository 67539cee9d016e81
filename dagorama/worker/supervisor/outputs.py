"""Reads what C code and programs in the children write, for `worker --capture fd`: passes it on, and logs it.

The rule: it belongs to the node that runs in the child. If several run, it is only passed on. If the worker's own
output does not take it, the child waits, and the supervisor does not.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.worker.attempt_log import AttemptLog
from dagorama.worker.output_pipes import STDERR, OutputPipes
from dagorama.worker.supervisor.session import Held, Session
from dagorama.worker.supervisor.slot import Slot

#: Bytes that are read together: that many can be written without waiting if a pipe takes any.
READ_BYTES = select.PIPE_BUF
FLUSH_INTERVAL_S = 1.0
RETRY_DELAY_S = 0.05  #: delay of a retry if the worker's own output takes nothing
#: The first sequence number of parts; the child counts its own ones from 1.
FIRST_SEQUENCE = 1 << 30


class _Attempt(NamedTuple):
    """An attempt as its log names it."""

    node: int
    attempt: int


class _Sink:
    """Sends parts of logs as reports."""

    def __init__(self, slot: Slot, session: Session) -> None:
        self._held = Held(slot.number, [], [])
        self._session = session

    def logged(self, log: pb.NodeLog) -> None:
        self._session.report(self._held, pb.Results(logs=[log]).SerializeToString())

    def reported(self, report: pb.NodeReport) -> None:
        """Do nothing: only user code reports."""


class Outputs:
    """The output of all children. Without pipes it does nothing."""

    def __init__(self, slots: Sequence[Slot], session: Session, is_logged: bool) -> None:
        """Log the output only if `is_logged`; it is passed on in any case."""
        self._loop = asyncio.get_running_loop()
        self._slots = slots
        self._session = session
        self._is_logged = is_logged
        self._logs: dict[int, AttemptLog] = {}  # by attempt
        self._flushing: asyncio.TimerHandle | None = None
        for slot in slots:
            if slot.output is not None:
                for descriptor in slot.output.pipes:
                    self._watch(slot, slot.output, descriptor)

    def end(self, attempts: Iterable[int]) -> None:
        """Send the rest of what these attempts have written, before their outcomes."""
        for attempt in attempts if self._logs else ():
            if (log := self._logs.pop(attempt, None)) is not None:
                log.close()

    def finish(self, slot: Slot) -> None:
        """Read everything that a child has written before it exited, and send it."""
        if slot.output is not None:
            for descriptor in slot.output.pipes:
                while self._read(slot, slot.output, descriptor):
                    pass
            self.end(list(self._logs.keys() & set(slot.held.attempts)))

    def _watch(self, slot: Slot, output: OutputPipes, descriptor: int) -> None:
        self._loop.add_reader(output.pipes[descriptor].reading, self._on_readable, slot, output, descriptor)

    def _on_readable(self, slot: Slot, output: OutputPipes, descriptor: int) -> None:
        if not _takes_more(descriptor):
            self._loop.remove_reader(output.pipes[descriptor].reading)
            self._loop.call_later(RETRY_DELAY_S, self._watch, slot, output, descriptor)
            return
        self._read(slot, output, descriptor)

    def _read(self, slot: Slot, output: OutputPipes, descriptor: int) -> bool:
        """Read a piece, pass it on and log it. Return False if there was none."""
        running = slot.running()  # before it is read: afterwards the child goes on to another node
        try:
            data = os.read(output.pipes[descriptor].reading, READ_BYTES)
        except BlockingIOError:
            return False
        with suppress(OSError):  # the worker's own output is closed
            os.write(descriptor, data)
        if data and self._is_logged and len(running) == 1:
            self._log(slot, running[0]).write(pb.STDERR if descriptor == STDERR else pb.STDOUT, data)
        return bool(data)

    def _log(self, slot: Slot, attempt: int) -> AttemptLog:
        log = self._logs.get(attempt)
        if log is None:
            named = _Attempt(slot.node_of(attempt), attempt)
            sink = _Sink(slot, self._session)
            log = self._logs[attempt] = AttemptLog(named, 0, sink, self._flush_soon, FIRST_SEQUENCE)
        return log

    def _flush_soon(self) -> None:
        if self._flushing is None:
            self._flushing = self._loop.call_later(FLUSH_INTERVAL_S, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        self.end([attempt for attempt in self._logs if not any(slot.holds(attempt) for slot in self._slots)])
        for log in self._logs.values():
            log.flush()
        if any(log.is_waiting for log in self._logs.values()):
            self._flush_soon()


def _takes_more(descriptor: int) -> bool:
    """Return whether a write of a few bytes would not wait."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))
