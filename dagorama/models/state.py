"""Where a node stands."""

from enum import IntEnum


class State(IntEnum):
    """A node's state; the numbers are those of the wire."""

    WAITING = 0  #: for the nodes that it needs
    QUEUED = 1  #: for a worker
    CLAIMED = 2  #: by a worker
    RESOLVING = 3  #: it has returned promises, which are not kept yet
    BACKOFF = 4  #: it raised and waits for its next run
    COMPLETED = 5
    FAILED = 6
    CANCELLED = 7

    @property
    def has_ended(self) -> bool:
        return self >= State.COMPLETED

    def __str__(self) -> str:
        return self.name
