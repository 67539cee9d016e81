"""A disk that outlives brokers: what a commit holds is there from one moment on, and before it not at all."""

from __future__ import annotations

from collections.abc import Callable

from dagorama_broker.errors import StoreError
from dagorama_broker.model.rows import Changes
from dagorama_broker.store.memory.store import MemoryStore


class Disk(MemoryStore):
    """The records of all brokers of one life. A commit that was under way when its broker died may be there or not."""

    def __init__(self) -> None:
        super().__init__()
        self.committed: Callable[[Changes], None] = lambda changes: None
        self.fails_next = ""  #: "before" or "after" the commit is on disk

    def commit(self, changes: Changes) -> None:
        fails, self.fails_next = self.fails_next, ""
        if fails == "before":
            raise Injected("the disk is full")
        super().commit(changes)
        self.committed(changes)
        if fails:
            raise Injected("the disk refuses to write")


class Injected(StoreError):
    """A failure that the schedule asked for."""
