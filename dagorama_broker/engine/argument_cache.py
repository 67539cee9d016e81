"""Caches the arguments of unfinished nodes: if nodes were made together, their arguments are one block of bytes.

A million queued nodes have a million small envelopes: as an object and an entry of a dict each, they take three times
the memory of their bytes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right, insort
from collections.abc import Container, Iterable
from itertools import accumulate
from operator import attrgetter

from dagorama_broker.engine.payload_cache import PayloadCache, Read
from dagorama_broker.model.rows import NodeRow

#: Envelopes of one pack, and their bytes, at most: it is freed when the last of them is dropped.
LARGEST, MOST_BYTES = 256, 64 << 10
#: Envelopes that are packed, at least.
LEAST = 8
_FIRST = attrgetter("first")


class _Pack:
    """Envelopes of nodes with consecutive keys."""

    __slots__ = ("_ends", "_here", "_joined", "_left", "end", "first")

    def __init__(self, first: int, envelopes: list[bytes]) -> None:
        self.first, self.end = first, first + len(envelopes)
        self._joined = b"".join(envelopes)
        self._ends = array("I", accumulate(map(len, envelopes), initial=0))
        self._here = bytearray(b"\x01") * len(envelopes)  # 0: it was dropped
        self._left = len(envelopes)

    def __len__(self) -> int:
        return len(self._joined)

    def get(self, key: int) -> bytes | None:
        place = key - self.first
        return self._joined[self._ends[place] : self._ends[place + 1]] if self._here[place] else None

    def drop(self, key: int) -> bool:
        """Drop an envelope; return whether it was the last one."""
        place = key - self.first
        self._left -= self._here[place]
        self._here[place] = 0
        return not self._left


class ArgumentCache(PayloadCache):
    """Caches arguments by node key."""

    def __init__(self, most: int, read: Read) -> None:
        super().__init__(most, read)
        self._packs: list[_Pack] = []  # in the order of their keys
        self._last: _Pack | None = None  # the pack that was used last

    def __contains__(self, key: int) -> bool:
        return self.find(key) is not None

    def keep_rows(self, rows: Iterable[NodeRow], nodes: Container[int]) -> None:
        """Add the arguments of those rows whose keys are in `nodes`, as far as there is room."""
        first, following, run, size = 0, 0, list[bytes](), 0
        for key, _, _, _, arguments in rows:
            if key not in nodes:
                continue
            size += len(arguments)
            if key != following or key - first == LARGEST or size > MOST_BYTES:
                self._add(first, run)
                first, run, size = key, [], len(arguments)
            run.append(arguments)
            following = key + 1
        self._add(first, run)

    def _add(self, first: int, run: list[bytes]) -> None:
        if len(run) < LEAST:
            for key, envelope in enumerate(run, first):
                self.keep(key, envelope)
            return
        pack = _Pack(first, run)
        if self.size + len(pack) <= self.most:
            insort(self._packs, pack, key=_FIRST)
            self.size += len(pack)

    def find(self, key: int) -> bytes | None:
        envelope = self.kept.get(key)
        if envelope is None and (pack := self._pack_of(key)) is not None:
            return pack.get(key)
        return envelope

    def drop(self, key: int) -> None:
        self.drop_all((key,))

    def drop_all(self, keys: Iterable[int]) -> None:
        """Remove the envelopes that are here."""
        kept, pack = self.kept, self._last
        for key in keys:
            if key in kept:
                super().drop(key)
                continue
            if pack is None or not pack.first <= key < pack.end:
                pack = self._pack_of(key)
            if pack is not None and pack.drop(key):
                del self._packs[self._place_of(key)]
                self.size -= len(pack)
                self._last = pack = None

    def _pack_of(self, key: int) -> _Pack | None:
        pack = self._last
        if pack is not None and pack.first <= key < pack.end:
            return pack
        place = self._place_of(key)
        if place < 0 or key >= self._packs[place].end:
            return None
        self._last = self._packs[place]
        return self._last

    def _place_of(self, key: int) -> int:
        """Return the place of the last pack that begins with this key or an earlier one; -1: there is none."""
        return bisect_right(self._packs, key, key=_FIRST) - 1
