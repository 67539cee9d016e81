"""Nodes of a store in memory that run with other code than they were created with, and the adoptions that allow it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dagorama_broker.model.rows import RebindingRow, ReboundRow


class Rebinds:
    """Adopted nodes by key, and adoptions by id; an adoption is deleted with the last node that refers to it."""

    def __init__(self) -> None:
        self.adopted: dict[int, ReboundRow] = {}
        self.adoptions: dict[int, RebindingRow] = {}
        self._references: Counter[int] = Counter()  #: by adoption

    def adopt(self, row: ReboundRow) -> None:
        """Add a node, or replace its row. Its adoption must be there."""
        before = self.adopted.get(row.key)
        self.adopted[row.key] = row
        self._references[row.rebinding] += 1
        if before is not None:
            self._dereference(before)

    def delete(self, key: int) -> None:
        """Delete a node if it was adopted."""
        if (row := self.adopted.pop(key, None)) is not None:
            self._dereference(row)

    def _dereference(self, row: ReboundRow) -> None:
        self._references[row.rebinding] -= 1
        if not self._references[row.rebinding]:
            del self._references[row.rebinding]
            self.adoptions.pop(row.rebinding, None)

    def functions_of(self, keys: Iterable[int]) -> dict[int, int]:
        """Return the functions of the nodes that were adopted, by key."""
        return {key: self.adopted[key].function for key in keys if key in self.adopted}

    def adoptions_of(self, keys: Iterable[int]) -> dict[int, RebindingRow]:
        """Return the adoptions that these nodes refer to, by key."""
        rows = (self.adopted[key] for key in keys if key in self.adopted)
        return {row.key: self.adoptions[row.rebinding] for row in rows if row.rebinding}
