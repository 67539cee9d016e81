"""IDs that a store certainly lacks, so that it need not be asked about them: a Bloom filter of all IDs that it has.

Nearly every submission is about IDs that were never used. A store that is not near would be asked for a round trip to
hear that, and one that is near would read half a dozen pages that the last commit has changed. Only this broker writes,
so a filter that was filled once and gets all that is committed since never says of a used ID that it is unused. It
takes an unused ID for a used one about once in a hundred times, which costs the question that it saves otherwise; so
does an ID that is forgotten by the store. It takes two bytes an ID, or four.
"""

from __future__ import annotations

from collections.abc import Iterable

from dagorama_broker.engine.commits import Commits
from dagorama_broker.engine.turns import Turn
from dagorama_broker.model.rows import Changes

#: Bits for each ID; three of them are set.
_BITS = 16
#: Number of IDs for which the first table has room; each further table has room for as many as all before it.
_FIRST = 1 << 16
#: Number of IDs that are read from the store at once.
_PAGE = 5_000
#: Number of IDs that are added at once.
_SLICE = 200
#: Number of IDs of a near store that are read; it is quicker to ask a larger one than to read it at each start.
MOST_NEAR = 200_000


class UsedIds:
    def __init__(self) -> None:
        self.is_complete = False  #: whether it has all IDs of the store
        self._tables: list[bytearray]
        self._room: int
        self._clear()

    def __len__(self) -> int:
        """Return the number of bytes of the tables."""
        return sum(map(len, self._tables))

    def __contains__(self, id: bytes) -> bool:
        """Return whether an ID may have been used."""
        places = _places(id)
        for table in self._tables:
            mask = len(table) * 8 - 1
            for place in places:
                at = place & mask
                if not table[at >> 3] >> (at & 7) & 1:
                    break
            else:
                return True
        return False

    def update(self, ids: Iterable[bytes]) -> None:
        for id in ids:
            if id in self:
                continue
            if not self._room:
                self._tables.append(bytearray(2 * len(self._tables[-1])))
                self._room = len(self._tables[-1]) * 8 // _BITS
            self._room -= 1
            table = self._tables[-1]
            mask = len(table) * 8 - 1
            for place in _places(id):
                at = place & mask
                table[at >> 3] |= 1 << (at & 7)

    def _clear(self) -> None:
        self._tables = [bytearray(_FIRST * _BITS // 8)]
        self._room = _FIRST  # for this number of IDs in the last table

    async def fill(self, commits: Commits) -> None:
        """Read all IDs of the store, and add all that is committed from now on. Forget all if a near store is large."""
        commits.observers.add(self._note)
        after, turn, read = b"", Turn(), 0
        while ids := await commits.in_look(commits.store.used_ids, after, _PAGE):
            read += len(ids)
            if commits.store.near and read > MOST_NEAR:
                commits.observers.discard(self._note)
                self._clear()
                return
            for place in range(0, len(ids), _SLICE):
                self.update(ids[place : place + _SLICE])
                await turn.share()
            after = ids[-1]
        self.is_complete = True

    def _note(self, changes: Changes, made: set[bytes]) -> None:
        self.update(made)


def _places(id: bytes) -> tuple[int, int, int]:
    """Return the bits of an ID, in a table of any size. Python's hash is another one in each process."""
    hashed = hash(id)
    step = hashed >> 32 | 1
    return hashed, hashed + step, hashed + 2 * step
