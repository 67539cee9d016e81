"""Memory that a supervisor and its children share: what runs, and what was taken back. One writer for each word.

A slot numbers the nodes that its child is given from 0; the child starts them in that order. So one word says how
far it has come. The child writes `started` and the running entries, the supervisor the taken marks; both do so under
the slot's lock, which is held for less than a microsecond. That is why taking back does not wait for a child that is
inside a long node, or inside C code that keeps the interpreter lock.
"""

import mmap
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from dagorama.worker.locks import Lock, make_locks

if TYPE_CHECKING:
    import asyncio

ENTRIES = 128  #: nodes that one child may have running at once
RING = 16384  #: nodes that one slot may hold; a mark for each, by ordinal modulo RING

_WORD = 8
_COMMON_BYTES = 2 * _WORD
_LARGE_FROM, _CAREFUL_UNTIL = range(2)
_STARTED = 0
_TABLE = 1
_TABLE_WORDS = 2 * ENTRIES
_CANCELLED = _TABLE + _TABLE_WORDS  # for each entry, 1 + the ordinal of the node in it that was cancelled last
_RING_AT = (_CANCELLED + ENTRIES) * _WORD
_SLOT_BYTES = _RING_AT + RING
_PATIENCE = 100  # tries for a lock whose holder needs a microsecond, unless it was stopped in the middle


class Running(NamedTuple):
    """A node that its child is inside of."""

    entry: int
    ordinal: int
    since: int  #: monotonic nanoseconds


class _Bell:
    """A pipe by which the supervisor wakes whoever watches it in the child; bytes of a former child do no harm."""

    def __init__(self) -> None:
        self._ends = os.pipe()
        for end in self._ends:
            os.set_blocking(end, False)

    def ring(self) -> None:
        with suppress(BlockingIOError):  # it rings already
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
    """One slot's part. `ordinal` counts the nodes given to the present child; `entry` is a place in its table."""

    __slots__ = ("_bell", "_cancelled", "_lock", "_ring", "_words")

    def __init__(self, view: memoryview, lock: Lock) -> None:
        self._words = view[:_RING_AT].cast("Q")
        self._cancelled = view[_CANCELLED * _WORD : _RING_AT].toreadonly().cast("Q")
        self._ring = view[_RING_AT:_SLOT_BYTES]
        self._lock: Lock | threading.Lock = lock
        self._bell = _Bell()

    # --- the child's ---

    def start(self, ordinal: int, entry: int, now: int) -> bool:
        """Claim the next node; False if it was taken back. `now` is monotonic nanoseconds."""
        words = self._words
        self._lock.acquire()
        taken = self._ring[ordinal % RING]
        if not taken:
            # In this order, so that a child killed in between leaves no entry without its time.
            words[_TABLE + 2 * entry + 1] = now
            words[_TABLE + 2 * entry] = ordinal + 1
        words[_STARTED] = ordinal + 1
        self._lock.release()
        return not taken

    def finish(self, entry: int) -> None:
        """The entry's result has left, or it has none; until then its node counts as running."""
        self._words[_TABLE + 2 * entry] = 0

    def is_cancelled(self, entry: int, ordinal: int) -> bool:
        """Whether the supervisor has cancelled the node of that ordinal, which was started under that entry."""
        return self._cancelled[entry] == ordinal + 1

    def watch(self, loop: "asyncio.AbstractEventLoop", look: Callable[[], None]) -> None:
        """Have `look` called in the loop's thread whenever something was cancelled. For that thread, once."""
        self._bell.watch(loop, look)

    def forget(self) -> None:
        """In a fork of the child: see what is cancelled, and write to memory of its own."""
        self._words = memoryview(bytearray(self._words)).cast("Q")
        self._lock = threading.Lock()

    # --- the supervisor's ---

    def open(self, first: int, count: int) -> None:
        """Clear the marks of `count` ordinals, before the child is told of them."""
        start, end = first % RING, first % RING + count
        self._ring[start : min(end, RING)] = bytes(min(end, RING) - start)
        if end > RING:
            self._ring[: end - RING] = bytes(end - RING)

    def take_back(self, ordinals: Iterable[int]) -> list[int] | None:
        """Mark and return those that have not started; None if the child was stopped inside the lock: try later."""
        if not any(self._lock.acquire(False) for _ in range(_PATIENCE)):
            return None
        started = self._words[_STARTED]
        taken = [ordinal for ordinal in ordinals if ordinal >= started and not self._ring[ordinal % RING]]
        for ordinal in taken:
            self._ring[ordinal % RING] = 1
        self._lock.release()
        return taken

    def cancel(self, ordinals: Iterable[int]) -> list[int]:
        """Tell those that run; returns them."""
        wanted = set(ordinals)
        told = [node for node in self.entries() if node.ordinal in wanted]
        for node in told:
            self._words[_CANCELLED + node.entry] = node.ordinal + 1
        if told:
            self._bell.ring()
        return [node.ordinal for node in told]

    def entries(self) -> list[Running]:
        """Each node that runs, and the last of each kind that has ended, as long as its result has not left."""
        table = self._words[_TABLE : _TABLE + _TABLE_WORDS].tolist()
        return [Running(at // 2, table[at] - 1, table[at + 1]) for at in range(0, _TABLE_WORDS, 2) if table[at]]

    def running(self) -> list[tuple[int, int]]:
        """(ordinal, monotonic nanoseconds of its start) of each node that runs."""
        return [(node.ordinal, node.since) for node in self.entries()]

    def started(self) -> int:
        return int(self._words[_STARTED])

    def reset(self) -> None:
        """Make it as new, when no child is left that uses it; one killed inside the lock leaves it locked."""
        self._lock.acquire(False)
        self._words[_STARTED] = 0
        words = _TABLE_WORDS + ENTRIES
        self._words[_TABLE : _TABLE + words] = memoryview(bytes(words * _WORD)).cast("Q")
        self._ring[:] = bytes(RING)
        self._lock.release()


class SharedMemory:
    """All slots' memory and two words for all. Made before the first fork; goes when the last process does."""

    def __init__(self, slots: int) -> None:
        view = memoryview(mmap.mmap(-1, _COMMON_BYTES + slots * _SLOT_BYTES))
        self._common = view[:_COMMON_BYTES].cast("Q")
        places = range(_COMMON_BYTES, _COMMON_BYTES + slots * _SLOT_BYTES, _SLOT_BYTES)
        self.slots = [
            SlotMemory(view[at : at + _SLOT_BYTES], lock)
            for at, lock in zip(places, make_locks(slots), strict=True)
        ]

    @property
    def large_from(self) -> int:
        """Bytes from which a value travels beside its envelope; the broker says so before it grants anything."""
        return int(self._common[_LARGE_FROM])

    @large_from.setter
    def large_from(self, size: int) -> None:
        self._common[_LARGE_FROM] = size

    @property
    def careful_until(self) -> int:
        """Until when, in monotonic nanoseconds, each result leaves before the next node starts.

        A child that could not send says so: results gather, and it is not known which of their nodes is to blame.
        """
        return int(self._common[_CAREFUL_UNTIL])

    @careful_until.setter
    def careful_until(self, time: int) -> None:
        self._common[_CAREFUL_UNTIL] = time
