"""Counts the steps of the loop for metrics: the ends of nodes and instances, and how long steps and commits take.

The rule: a broker that serves no metrics has no recorder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter

from dagorama_broker.model.rows import Changes, InstanceRow
from dagorama_broker.scheduler import Effects, Scheduler
from dagorama_monitoring.histogram import Histogram


@dataclass(slots=True)
class Traffic:
    """Counts the messages of our own calls."""

    messages_in: int = 0
    messages_out: int = 0


class Recorder:
    """The counts of one broker, since its start."""

    def __init__(self, scheduler: Scheduler) -> None:
        """Begin to count; call it before the scheduler is restored."""
        self.scheduling = scheduler.record()
        self.nodes_made = 0
        self.dispatches = Histogram()  #: microseconds from granting nodes until their workers are told
        self.commits = Histogram()  #: microseconds
        self.batches = Histogram()  #: nodes that a commit makes or ends
        self.instances = Histogram()  #: microseconds from the creation of an instance to its end
        self._created: dict[int, float] = {}  # of instances that have not ended, by key
        self._began = 0.0

    def restored(self, instances: Iterable[InstanceRow]) -> None:
        """Take note of unfinished instances that an earlier broker left."""
        self._created = {row.key: row.created for row in instances}

    def begin_step(self) -> None:
        """Take the time before nodes are granted."""
        self._began = perf_counter()

    def end_step(self, changes: Changes, effects: Effects, commit_seconds: float) -> None:
        """Count a step that is durable, and whose workers and callers were told."""
        if effects.granted:
            self.dispatches.add(_microseconds(perf_counter() - self._began))
        if changes:
            self.commits.add(_microseconds(commit_seconds))
            self.batches.add(len(changes.nodes) + len(changes.outcomes))
            self._note(changes)
        for node in effects.ended:
            node.queue.figures.ended[node.state] += 1

    def _note(self, changes: Changes) -> None:
        created = self._created
        for block in changes.blocks:
            self.nodes_made += block.size
        for row in changes.instances:
            created[row.key] = row.created
        for end in changes.instance_ends:
            # An instance that a person has retried ends again, and is counted once.
            if end.ended is not None and (since := created.pop(end.key, None)) is not None:
                self.instances.add(_microseconds(end.ended - since))


def _microseconds(seconds: float) -> int:
    return max(0, int(seconds * 1e6))
