"""Nodes of a store in memory that run with other code than they were created with, and the rebindings that allow it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dagorama_broker.model.rows import RebindingRow, ReboundRow


class Rebinds:
    """Rebound nodes by key, and rebindings by ID; a rebinding is deleted with the last node that refers to it."""

    def __init__(self) -> None:
        self.rebound: dict[int, ReboundRow] = {}
        self.rebindings: dict[int, RebindingRow] = {}
        self._references: Counter[int] = Counter()  #: by rebinding

    def rebind(self, row: ReboundRow) -> None:
        """Add a node, or replace its row. Its rebinding must be there."""
        before = self.rebound.get(row.key)
        self.rebound[row.key] = row
        self._references[row.rebinding] += 1
        if before is not None:
            self._dereference(before)

    def delete(self, key: int) -> None:
        """Delete a node if it was rebound."""
        if (row := self.rebound.pop(key, None)) is not None:
            self._dereference(row)

    def _dereference(self, row: ReboundRow) -> None:
        self._references[row.rebinding] -= 1
        if not self._references[row.rebinding]:
            del self._references[row.rebinding]
            self.rebindings.pop(row.rebinding, None)

    def functions_of(self, keys: Iterable[int]) -> dict[int, int]:
        """Return the functions of the nodes that were rebound, by key."""
        return {key: self.rebound[key].function for key in keys if key in self.rebound}

    def rebindings_of(self, keys: Iterable[int]) -> dict[int, RebindingRow]:
        """Return the rebindings that these nodes refer to, by key."""
        rows = (self.rebound[key] for key in keys if key in self.rebound)
        return {row.key: self.rebindings[row.rebinding] for row in rows if row.rebinding}
