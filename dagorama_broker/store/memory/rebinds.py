"""Nodes of a store in memory that run with other code than they were created with, and the adoptions that allow it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dagorama_broker.model.rows import AdoptedRow, AdoptionRow


class Rebinds:
    """Adopted nodes by key, and adoptions by id; an adoption is deleted with the last node that refers to it."""

    def __init__(self) -> None:
        self.adopted: dict[int, AdoptedRow] = {}
        self.adoptions: dict[int, AdoptionRow] = {}
        self._references: Counter[int] = Counter()  #: by adoption

    def adopt(self, row: AdoptedRow) -> None:
        """Add a node, or replace its row. Its adoption must be there."""
        before = self.adopted.get(row.key)
        self.adopted[row.key] = row
        self._references[row.adoption] += 1
        if before is not None:
            self._dereference(before)

    def delete(self, key: int) -> None:
        """Delete a node if it was adopted."""
        if (row := self.adopted.pop(key, None)) is not None:
            self._dereference(row)

    def _dereference(self, row: AdoptedRow) -> None:
        self._references[row.adoption] -= 1
        if not self._references[row.adoption]:
            del self._references[row.adoption]
            self.adoptions.pop(row.adoption, None)

    def functions_of(self, keys: Iterable[int]) -> dict[int, int]:
        """Return the functions of the nodes that were adopted, by key."""
        return {key: self.adopted[key].function for key in keys if key in self.adopted}

    def adoptions_of(self, keys: Iterable[int]) -> dict[int, AdoptionRow]:
        """Return the adoptions that these nodes refer to, by key."""
        rows = (self.adopted[key] for key in keys if key in self.adopted)
        return {row.key: self.adoptions[row.adoption] for row in rows if row.adoption}
