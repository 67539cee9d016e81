"""Memory that a supervisor and its children share: running nodes, and nodes that were taken back or cancelled.

A slot numbers the nodes that its child is given from 0, and the child starts them in that order, so one word tells how
many have started. Each word has one writer: the child writes the started count and the table of running nodes, the
supervisor writes the marks of taken-back and cancelled nodes. Starting and taking back hold the slot's lock, for less
than a microsecond. Therefore taking back does not wait for a child inside a long node, or inside C code that holds the
GIL.
"""

import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing import get_context
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from dagorama.worker.dump_file import DumpFile
from dagorama.worker.output_pipes import OutputPipes
from dagorama.worker.run_times import RunTimes

if TYPE_CHECKING:
    import asyncio

ENTRIES = 128  #: nodes that one child may run at once
RING = 16384  #: nodes that one slot may hold; each has a mark, at its ordinal modulo RING

_WORD = 8
_COMMON_BYTES = 2 * _WORD
_LARGE_FROM, _CAREFUL_UNTIL = range(2)
_STARTED = 0
_TABLE = 1
_TABLE_WORDS = 2 * ENTRIES
_CANCELLED = _TABLE + _TABLE_WORDS  # for each entry, 1 + the ordinal of its node that was cancelled last
_RING_AT = (_CANCELLED + ENTRIES) * _WORD
_SLOT_BYTES = _RING_AT + RING
_MAX_LOCK_ATTEMPTS = 100  # the lock is held for a microsecond, unless its holder was stopped in the middle


# --- locks --------------------------------------------------------------------------------------------------


class Lock(Protocol):
    """A lock between processes. If its holder is killed, `SharedMemory.reset` makes it available again."""

    def acquire(self, block: bool = True) -> bool: ...

    def release(self) -> None: ...


class FileLock:
    """A lock on one byte of a file that is open in all processes, for systems without POSIX semaphores.

    The system releases it when its holder exits. A file lock only excludes other processes, so a second lock excludes
    other threads.
    """

    def __init__(self, file: IO[bytes], position: int) -> None:
        self._file = file
        self._position = position
        self._threads = threading.Lock()

    def acquire(self, block: bool = True) -> bool:
        if not self._threads.acquire(block):
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB), 1, self._position)
        except (BlockingIOError, PermissionError):  # another process holds it
            self._threads.release()
            return False
        return True

    def release(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._position)
        with suppress(RuntimeError):  # `reset` also releases a lock that it could not acquire
            self._threads.release()


def make_locks(count: int) -> list[Lock]:
    """Return locks for use across forks; call it before the first fork.

    Raises OSError if the system has no semaphores and no space for a file.
    """
    try:
        context = get_context("fork")
        return [context.Lock() for _ in range(count)]
    except (ImportError, OSError):  # no /dev/shm, as in some containers and on AWS Lambda
        file = TemporaryFile()  # noqa: SIM115 - stays open as long as the locks exist
        return [FileLock(file, position) for position in range(count)]


# --- the memory ---------------------------------------------------------------------------------------------


class Running(NamedTuple):
    """A node that the child is running."""

    entry: int
    ordinal: int
    since: int  #: monotonic nanoseconds


class _WakePipe:
    """A pipe to wake the event loop of the child. Bytes that an earlier child has not read are harmless."""

    def __init__(self) -> None:
        self._ends = os.pipe()
        for end in self._ends:
            os.set_blocking(end, False)

    def wake(self) -> None:
        with suppress(BlockingIOError):  # a wake-up is already pending
            os.write(self._ends[1], b"!")

    def watch(self, loop: "asyncio.AbstractEventLoop", look: Callable[[], None]) -> None:
        def answer() -> None:
            with suppress(BlockingIOError):
                os.read(self._ends[0], 4096)
            look()

        loop.add_reader(self._ends[0], answer)

    def __del__(self) -> None:
        for end in self._ends:
            os.close(end)


class SlotMemory:
    """The memory of a slot. `ordinal` numbers the nodes given to the current child, `entry` the rows of its table."""

    __slots__ = ("_bell", "_cancelled", "_lock", "_ring", "_words", "dump", "output")

    def __init__(self, view: memoryview, lock: Lock, output: OutputPipes | None = None) -> None:
        self._words = view[:_RING_AT].cast("Q")
        self._cancelled = view[_CANCELLED * _WORD : _RING_AT].toreadonly().cast("Q")
        self._ring = view[_RING_AT:_SLOT_BYTES]
        self._lock: Lock | threading.Lock = lock
        self._bell = _WakePipe()
        self.dump = DumpFile()
        self.output = output  #: in place of stdout and stderr; None: the child has the streams of the worker

    # --- for the child ---

    def start(self, ordinal: int, entry: int, now: int) -> bool:
        """Start the next node; return False if it was taken back. `now` is in monotonic nanoseconds."""
        words = self._words
        self._lock.acquire()
        taken = self._ring[ordinal % RING]
        if not taken:
            # The time first, so that a child that is killed in between leaves no entry without a time.
            words[_TABLE + 2 * entry + 1] = now
            words[_TABLE + 2 * entry] = ordinal + 1
        words[_STARTED] = ordinal + 1
        self._lock.release()
        return not taken

    def finish(self, entry: int) -> None:
        """Clear an entry whose result was sent, or that has none. Until then its node counts as running."""
        self._words[_TABLE + 2 * entry] = 0

    def is_cancelled(self, entry: int, ordinal: int) -> bool:
        """Return whether the supervisor has cancelled the node, which was started with this entry and ordinal."""
        return self._cancelled[entry] == ordinal + 1

    def watch(self, loop: "asyncio.AbstractEventLoop", look: Callable[[], None]) -> None:
        """Call `look` in the loop's thread whenever a node was cancelled. Call this once, in that thread."""
        self._bell.watch(loop, look)

    def forget(self) -> None:
        """In a fork of the child, write to private memory from now on. Cancellations remain visible."""
        self._words = memoryview(bytearray(self._words)).cast("Q")
        self._lock = threading.Lock()

    # --- for the supervisor ---

    def open(self, first: int, count: int) -> None:
        """Clear the marks of `count` ordinals, before the child receives their nodes."""
        start, end = first % RING, first % RING + count
        self._ring[start : min(end, RING)] = bytes(min(end, RING) - start)
        if end > RING:
            self._ring[: end - RING] = bytes(end - RING)

    def take_back(self, ordinals: Iterable[int]) -> list[int] | None:
        """Mark and return the ordinals that have not started.

        Return None if the child was stopped while it held the lock; try again later.
        """
        if not any(self._lock.acquire(False) for _ in range(_MAX_LOCK_ATTEMPTS)):
            return None
        started = self._words[_STARTED]
        taken = [ordinal for ordinal in ordinals if ordinal >= started and not self._ring[ordinal % RING]]
        for ordinal in taken:
            self._ring[ordinal % RING] = 1
        self._lock.release()
        return taken

    def cancel(self, ordinals: Iterable[int]) -> list[int]:
        """Notify the running nodes among these ordinals, and return their ordinals."""
        wanted = set(ordinals)
        running = [node for node in self.entries() if node.ordinal in wanted]
        for node in running:
            self._words[_CANCELLED + node.entry] = node.ordinal + 1
        if running:
            self._bell.wake()
        return [node.ordinal for node in running]

    def entries(self) -> list[Running]:
        """Return each running node, and the last sync and async node that ended as long as its result was not sent."""
        table = self._words[_TABLE : _TABLE + _TABLE_WORDS].tolist()
        return [Running(at // 2, table[at] - 1, table[at + 1]) for at in range(0, _TABLE_WORDS, 2) if table[at]]

    def running(self) -> list[tuple[int, int]]:
        """Return the ordinal and the start, in monotonic nanoseconds, of each node in `entries`."""
        return [(node.ordinal, node.since) for node in self.entries()]

    def started(self) -> int:
        """Return the number of nodes that the child has started or skipped."""
        return int(self._words[_STARTED])

    def reset(self) -> None:
        """Clear everything after the child has exited. Release the lock if the child was killed while holding it."""
        self._lock.acquire(False)
        self._words[_STARTED] = 0
        words = _TABLE_WORDS + ENTRIES
        self._words[_TABLE : _TABLE + words] = memoryview(bytes(words * _WORD)).cast("Q")
        self._ring[:] = bytes(RING)
        self._lock.release()


class SharedMemory:
    """The memory of all slots, and two common words. Make it before the first fork; the last process frees it."""

    def __init__(self, slots: int, *, captures_output: bool = False, counts_runs: bool = False) -> None:
        """`counts_runs`: the children count the run times of their nodes."""
        self.run_times = [RunTimes() for _ in range(slots if counts_runs else 0)]  #: by slot; empty: not counted
        view = memoryview(mmap.mmap(-1, _COMMON_BYTES + slots * _SLOT_BYTES))
        self._common = view[:_COMMON_BYTES].cast("Q")
        positions = range(_COMMON_BYTES, _COMMON_BYTES + slots * _SLOT_BYTES, _SLOT_BYTES)
        self.slots = [
            SlotMemory(view[at : at + _SLOT_BYTES], lock, OutputPipes() if captures_output else None)
            for at, lock in zip(positions, make_locks(slots), strict=True)
        ]

    @property
    def large_from(self) -> int:
        """The size from which a value is stored outside its envelope. The broker sends it before the first grant."""
        return int(self._common[_LARGE_FROM])

    @large_from.setter
    def large_from(self, size: int) -> None:
        self._common[_LARGE_FROM] = size

    @property
    def careful_until(self) -> int:
        """The time, in monotonic nanoseconds, until which each result is sent before the next node starts.

        A child whose socket failed sets it: if results are sent in batches, the node that closed the socket is unknown.
        """
        return int(self._common[_CAREFUL_UNTIL])

    @careful_until.setter
    def careful_until(self, time: int) -> None:
        self._common[_CAREFUL_UNTIL] = time
