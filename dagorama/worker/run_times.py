"""Run times of the nodes of a slot by function, in memory that its children and the supervisor share.

The child that the slot has at the moment is the only writer, and adds to two words for each run; the counts stay when
it exits. A supervisor that serves metrics reads them, so that it need not open the results that it forwards.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator

#: Functions of a slot that are told apart; others share the last row.
ROWS = 128
OTHER = "other"
#: Bytes of a function's name; the rest of a longer one is cut off.
NAME_BYTES = 1_000
#: Counts of a row: one for each bit length of microseconds, of which a report has at most 32.
BIT_LENGTHS = 33
#: Microseconds that a report can hold, 71 minutes.
MOST_US = 2**32 - 1

_WORD = 8
_NAME_AT = _WORD  # after the length of the name, 0: the row is free
_COUNTS_AT = _NAME_AT + NAME_BYTES
_TOTAL = BIT_LENGTHS  # the word after the counts
_ROW_BYTES = _COUNTS_AT + (BIT_LENGTHS + 1) * _WORD


class RunTimes:
    """The run times of one slot. Make it before the first fork."""

    def __init__(self) -> None:
        # The system provides pages of it when they are first written to.
        view = memoryview(mmap.mmap(-1, ROWS * _ROW_BYTES))
        self._rows = [view[at : at + _ROW_BYTES] for at in range(0, ROWS * _ROW_BYTES, _ROW_BYTES)]
        self._words = [row.cast("Q") for row in self._rows]
        self._known: dict[str, int] = {}  # the child's: row by function
        self._lock = threading.Lock()  # async nodes end in a thread of their own
        self._is_forgotten = False

    # --- for the child ---

    def add(self, function: str, microseconds: int) -> None:
        """Count a run."""
        with self._lock:
            if self._is_forgotten:
                return
            row = self._known.get(function)
            if row is None:
                row = self._known[function] = self._row_of((function or OTHER).encode(errors="replace")[:NAME_BYTES])
            words, first = self._words[row], _COUNTS_AT // _WORD
            words[first + microseconds.bit_length()] += 1
            words[first + _TOTAL] += microseconds

    def forget(self) -> None:
        """In a fork of the child, count nothing."""
        self._lock = threading.Lock()  # a thread of the child may hold the old one
        self._is_forgotten = True

    def _row_of(self, name: bytes) -> int:
        """Return the row of a function, also if an earlier child of the slot has made it; make it otherwise."""
        for number, found in enumerate(self._names()):
            if found == name:
                return number
        number = sum(1 for _ in self._names())
        if number >= ROWS - 1:
            number, name = ROWS - 1, OTHER.encode()
        row, words = self._rows[number], self._words[number]
        row[_NAME_AT : _NAME_AT + len(name)] = name
        words[0] = len(name)  # last, because the supervisor may be reading
        return number

    def _names(self) -> Iterator[bytes]:
        for row, words in zip(self._rows, self._words, strict=True):
            if not words[0]:
                return
            yield bytes(row[_NAME_AT : _NAME_AT + words[0]])

    # --- for the supervisor ---

    def read(self) -> Iterator[tuple[str, list[int], int]]:
        """Yield for each function its name, its runs by the bit length of their microseconds, and the sum of these."""
        first = _COUNTS_AT // _WORD
        for name, words in zip(self._names(), self._words, strict=False):
            yield name.decode(errors="replace"), words[first : first + BIT_LENGTHS].tolist(), int(words[first + _TOTAL])
