"""The eager attempts of a store in memory, and which runs they created."""

from __future__ import annotations

from dagorama_broker.model.domain import EagerState
from dagorama_broker.model.rows import EagerAttemptRow, NodeBlockRow


class EagerAttempts:
    """Rows by attempt, with an index by node."""

    def __init__(self) -> None:
        self.rows: dict[int, EagerAttemptRow] = {}
        self.by_node: dict[int, set[int]] = {}
        self.creators: dict[int, int] = {}  #: attempt by the first key of a block

    def put(self, row: EagerAttemptRow) -> None:
        """Add an attempt, or replace its row."""
        self.rows[row.attempt] = row
        self.by_node.setdefault(row.node, set()).add(row.attempt)

    def delete_of(self, node: int) -> None:
        """Delete the attempts of a node."""
        for attempt in self.by_node.pop(node, ()):
            del self.rows[attempt]

    def that_created(self, block: NodeBlockRow) -> EagerAttemptRow | None:
        """Return the attempt that created a block; None if none did."""
        return self.rows.get(self.creators.get(block.first_key, 0))

    def live(self) -> list[EagerAttemptRow]:
        """Return the attempts that may be rolled back, in their order."""
        return [row for _, row in sorted(self.rows.items()) if self._is_live(row)]

    def live_blocks(self) -> list[tuple[int, int]]:
        """Return the blocks that these attempts created, by their first keys, each after its attempt."""
        return [
            (attempt, key)
            for key, attempt in sorted(self.creators.items())
            if attempt in self.rows and self._is_live(self.rows[attempt])
        ]

    def _is_live(self, row: EagerAttemptRow) -> bool:
        return row.eager_state != EagerState.ABORTED and self.eager_state(row) is EagerState.OPEN

    def eager_state(self, row: EagerAttemptRow) -> EagerState:
        """Return the state of an attempt; a committed one shares the state of its parent."""
        while row.eager_state == EagerState.COMMITTED and row.parent in self.rows:
            row = self.rows[row.parent]
        return EagerState(row.eager_state)
