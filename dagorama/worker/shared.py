"""Memory that a supervisor and its children share: what runs, and what was taken back. One writer for each word.

A slot numbers the nodes that its child is given from 0; the child starts them in that order. So one word says how
far it has come. The child writes `started` and the running entries, the supervisor the taken marks; both do so under
the slot's lock, which is held for less than a microsecond. That is why taking back does not wait for a child that is
inside a long node, or inside C code that keeps the interpreter lock.
"""

import mmap
from collections.abc import Iterable
from multiprocessing import get_context
from multiprocessing.synchronize import Lock

ENTRIES = 128  #: nodes that one child may have running at once
RING = 16384  #: nodes that one slot may hold; a mark for each, by ordinal modulo RING

_WORD = 8
_STARTED = 0
_TABLE = 1
_TABLE_WORDS = 2 * ENTRIES
_RING_AT = (_TABLE + _TABLE_WORDS) * _WORD
_SLOT_BYTES = _RING_AT + RING
_PATIENCE = 100  # tries for a lock whose holder needs a microsecond, unless it was stopped in the middle


class SlotMemory:
    """One slot's part. `ordinal` counts the nodes given to the present child; `entry` is a place in its table."""

    __slots__ = ("_lock", "_ring", "_words")

    def __init__(self, view: memoryview, lock: Lock) -> None:
        self._words = view[:_RING_AT].cast("Q")
        self._ring = view[_RING_AT:_SLOT_BYTES]
        self._lock = lock

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
        self._words[_TABLE + 2 * entry] = 0

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

    def running(self) -> list[tuple[int, int]]:
        """(ordinal, monotonic nanoseconds of its start) of each node that runs."""
        table = self._words[_TABLE : _TABLE + _TABLE_WORDS].tolist()
        return [(table[at] - 1, table[at + 1]) for at in range(0, _TABLE_WORDS, 2) if table[at]]

    def started(self) -> int:
        return int(self._words[_STARTED])

    def reset(self) -> None:
        """Make it as new, when no child is left that uses it; one killed inside the lock leaves it locked."""
        self._lock.acquire(False)
        self._words[_STARTED] = 0
        self._words[_TABLE : _TABLE + _TABLE_WORDS] = memoryview(bytes(_TABLE_WORDS * _WORD)).cast("Q")
        self._ring[:] = bytes(RING)
        self._lock.release()


class SharedMemory:
    """All slots' memory and one word for all. Made before the first fork; goes when the last process does."""

    def __init__(self, slots: int) -> None:
        view = memoryview(mmap.mmap(-1, _WORD + slots * _SLOT_BYTES))
        context = get_context("fork")
        self._common = view[:_WORD].cast("Q")
        self.slots = [
            SlotMemory(view[at : at + _SLOT_BYTES], context.Lock())
            for at in range(_WORD, _WORD + slots * _SLOT_BYTES, _SLOT_BYTES)
        ]

    @property
    def large_from(self) -> int:
        """Bytes from which a value travels beside its envelope; the broker says so before it grants anything."""
        return int(self._common[0])

    @large_from.setter
    def large_from(self, size: int) -> None:
        self._common[0] = size
