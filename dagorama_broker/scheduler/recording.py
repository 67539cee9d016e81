"""Counts what happens, for metrics. Nothing here decides anything.

The rule: the verbs of the scheduler add integers and look at nothing. Unless metrics are served, nodes that take the
usual way are not counted at all.
"""

from __future__ import annotations

import re
from enum import StrEnum

from dagorama_broker.model.domain import Function
from dagorama_broker.scheduler.queues import FunctionQueue
from dagorama_broker.scheduler.run_times import BIT_LENGTHS, CachedRunTime, CountedRunTime, FunctionFigures

#: Names that a label of a metric has at most; the rest is `OTHER`.
MOST_NAMES = 1_000
OTHER = "other"
#: Pairs of a function and a queue that are counted separately; usually each function has one queue.
MOST_PAIRS = 2 * MOST_NAMES
#: Causes of deaths that are told apart; there are fewer signals.
MOST_CAUSES = 70
#: Nodes whose keys have none of these bits are sampled, 1 in 64. No key has none of the bits of `NONE_SAMPLED`.
SAMPLED, NONE_SAMPLED = 63, -1


class RetryReason(StrEnum):
    """Why a node runs again."""

    FAILED = "failed"  #: its function raised, or ran into its timeout
    PROCESS_DIED = "process_died"
    WORKER_LOST = "worker_lost"
    TIMEOUT_IGNORED = "timeout_ignored"  #: its worker did not stop it at its timeout
    REQUESTED = "requested"  #: by a person, after it had failed


class Recording:
    """The counts of one scheduler, since its start."""

    def __init__(self) -> None:
        self.is_complete = False  #: whether nodes that take the usual way are counted
        self.functions: dict[tuple[str, str], FunctionFigures] = {}  #: by the names of function and queue
        self.waits = [0] * BIT_LENGTHS  #: of sampled nodes for a worker, by the bit length of their microseconds
        self.waited = 0  #: microseconds of all of these
        self.retries = dict.fromkeys(RetryReason, 0)
        self.deaths: dict[str, int] = {}  #: of child processes that ran a node, by cause
        self._queued_at: dict[int, float] = {}  # when sampled nodes that are queued were queued, by key
        self._names: set[str] = set()
        self._queues: set[str] = set()

    # --- functions ------------------------------------------------------------------------------------

    def attach(self, queue: FunctionQueue) -> None:
        """Make the queue of a function count its nodes, if they are counted."""
        if self.is_complete:
            queue.figures = figures = self._figures_of(queue.function)
            if isinstance(queue.run_time, CachedRunTime):
                queue.run_time.figures = figures
            else:
                queue.run_time = CountedRunTime(queue.is_async, figures)

    def _figures_of(self, function: Function) -> FunctionFigures:
        names = _bounded(self._names, function.name), self.queue_name(function.queue)
        if names not in self.functions and len(self.functions) >= MOST_PAIRS:
            names = OTHER, OTHER
        return self.functions.setdefault(names, FunctionFigures())

    def queue_name(self, queue: str) -> str:
        """Return the name of a queue in metrics."""
        return _bounded(self._queues, queue)

    # --- events ---------------------------------------------------------------------------------------

    def queued(self, key: int, now: float) -> None:
        """Begin the wait of a sampled node."""
        self._queued_at[key] = now

    def left(self, key: int, is_granted: bool, now: float) -> None:
        """End the wait of a sampled node; it counts if a worker gets the node."""
        since = self._queued_at.pop(key, now)
        if is_granted:
            microseconds = int((now - since) * 1e6)
            self.waits[microseconds.bit_length()] += 1
            self.waited += microseconds

    def died(self, cause: str) -> None:
        """Count the death of a child process; `cause` is the worker's text."""
        found = re.match(r"killed by (SIG[A-Z0-9]{2,9})\b|exited with (code)", cause)
        name = (found[1] or "exit") if found is not None else OTHER
        if name not in self.deaths and len(self.deaths) >= MOST_CAUSES:
            name = OTHER
        self.deaths[name] = self.deaths.get(name, 0) + 1


def _bounded(names: set[str], name: str) -> str:
    if name not in names:
        if len(names) >= MOST_NAMES:
            return OTHER
        names.add(name)
    return name
