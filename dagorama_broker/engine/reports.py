"""Reports of running nodes about their progress: the latest of each, in memory, for people. It ends with the attempt.

The rule: nothing is done when an attempt ends. A report counts only as long as its attempt runs, and others are dropped
now and then.
"""

from __future__ import annotations

from typing import NamedTuple

from dagorama_broker.model.domain import State
from dagorama_broker.model.logs import LogOwner
from dagorama_broker.scheduler import Node, Scheduler

#: Reports of one instance that are shown.
MOST_SHOWN = 20
#: Reports that are kept before the ones of ended attempts are dropped, and the most of all.
FEW, MOST = 1_000, 100_000


class NodeReport(NamedTuple):
    """The latest report of an attempt."""

    owner: LogOwner
    attempt: int
    message: str
    fraction: float | None  #: from 0 to 1
    time: float  #: seconds since 1970, of the worker's clock


class Reports:
    """The latest report of each running node."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._reports: dict[int, NodeReport] = {}  # by the key of the node, the latest last
        self._tidy_at = FEW
        self.count = 0  #: of all reports so far

    def take(self, node: Node, message: str, fraction: float | None, time: float) -> None:
        """Replace the report of a running node."""
        self.count += 1
        self._reports.pop(node.key, None)
        self._reports[node.key] = NodeReport(owner_of(node), node.attempt, message, fraction, time)
        if len(self._reports) >= self._tidy_at:
            self._tidy()

    def of_node(self, node: Node) -> NodeReport | None:
        """Return the latest report of a node; None: its running attempt has made none."""
        report = self._reports.get(node.key)
        is_current = report is not None and node.state is State.CLAIMED and report.attempt == node.attempt
        return report if is_current else None

    def of_instance(self, id: bytes) -> list[NodeReport]:
        """Return the latest reports of nodes of an instance that run, the latest first."""
        if not self._reports:
            return []
        its = [key for key, report in self._reports.items() if report.owner.instance == id and self._is_current(key)]
        return [self._reports[key] for key in its[: -MOST_SHOWN - 1 : -1]]

    def _is_current(self, key: int) -> bool:
        node = self._scheduler.nodes.get(key)
        return node is not None and self.of_node(node) is not None

    def _tidy(self) -> None:
        """Drop reports of attempts that have ended, and the oldest ones if there are too many."""
        current = [key for key in self._reports if self._is_current(key)][-MOST:]
        self._reports = {key: self._reports[key] for key in current}
        self._tidy_at = max(FEW, 2 * len(current))


def owner_of(node: Node) -> LogOwner:
    """Return the owner of the logs of a node that is in memory."""
    assert node.block is not None
    return LogOwner(node.instance.id, node.block.id_of(node.key), node.queue.function.name)
