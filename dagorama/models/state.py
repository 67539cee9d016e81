"""The state of a node, and the result of a retry."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class State(IntEnum):
    """The state of a node; the numbers are the ones on the wire."""

    WAITING = 0  #: for the nodes that it needs
    QUEUED = 1  #: for a worker
    CLAIMED = 2  #: by a worker
    RESOLVING = 3  #: it returned promises whose nodes have not ended
    BACKOFF = 4  #: it raised an exception and waits for its next attempt
    COMPLETED = 5
    FAILED = 6
    CANCELLED = 7

    @property
    def has_ended(self) -> bool:
        return self >= State.COMPLETED

    def __str__(self) -> str:
        return self.name


class Unschedulable(NamedTuple):
    """A function of retried nodes that no connected worker may run."""

    function: str  #: "package.module:Class.method"
    hash: str  #: the code that its nodes need
    deployed: tuple[str, ...]  #: hashes of the code that connected workers have instead
    reason: str


class Retried(int):
    """The number of retried nodes: nodes that run again, and nodes that wait for them again."""

    queued: int  #: nodes that run again
    waiting: int  #: nodes that wait for others again
    completed: int  #: nodes among these that had completed; only with `downstream`
    used_failures: int  #: nodes that received one of the failures as a value and are not run again
    rebound: int  #: nodes that are run with other code than before; only with `new_code`
    unschedulable: tuple[
        Unschedulable, ...
    ]  #: functions of these nodes that no connected worker may run, as far as known

    def __new__(
        cls,
        queued: int,
        waiting: int,
        completed: int = 0,
        used_failures: int = 0,
        rebound: int = 0,
        unservable: tuple[Unschedulable, ...] = (),
    ) -> Retried:
        made = super().__new__(cls, queued + waiting)
        made.queued, made.waiting, made.completed = queued, waiting, completed
        made.used_failures, made.rebound, made.unschedulable = used_failures, rebound, unservable
        return made

    def __reduce__(self) -> tuple[type[Retried], tuple[object, ...]]:
        return Retried, (
            self.queued, self.waiting, self.completed, self.used_failures, self.rebound, self.unschedulable,
        )  # fmt: skip

    @property
    def warnings(self) -> list[str]:
        """Sentences about nodes that were not run again, and nodes that no connected worker may run."""
        used = [_used(self.used_failures)] if self.used_failures else []
        return used + [_explained(each) for each in self.unschedulable]


def _used(count: int) -> str:
    nodes = "1 node has used this failure and was" if count == 1 else f"{count} nodes have used this failure and were"
    return f"{nodes} not run again; use --downstream, or downstream=True"


def _explained(each: Unschedulable) -> str:
    text = f"no connected worker may run {each.function}: {each.reason}"
    if each.deployed:
        text += "; use --new-code, or new_code=True, to run these nodes with the deployed code"
    return text
