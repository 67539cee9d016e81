"""Carries out administrative changes: removed instances, paused queues and schedules.

The sixth layer of `Scheduler`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dagorama_broker.errors import ResourceExhausted
from dagorama_broker.model.actions import ActionRow
from dagorama_broker.model.rows import PausedQueueRow, RemovedRow
from dagorama_broker.model.schedules import ScheduleRow
from dagorama_broker.scheduler.hooks import silence_hook
from dagorama_broker.scheduler.workers import Workers

#: Queues that may be paused at the same time.
MOST_PAUSED = 10_000


class Administration(Workers):
    # --- removal ------------------------------------------------------------------------------------

    def remove_instances(self, rows: Iterable[RemovedRow]) -> None:
        """Remove ended instances with the next commit; the caller has checked that no call uses them."""
        rows = list(rows)
        self.graph.changes.removed += rows
        self.graph.caching.drop_instances((row.key for row in rows), self.graph.changes)

    def drop_functions(self, ids: Iterable[int]) -> None:
        """Drop functions that no stored node names, by their IDs, unless something in memory uses them."""
        ids = set(ids)
        self.claims.tidy(ids)
        self.claims.forget_queues({id for id in ids if self.graph.drop_queue(id)})

    def record_action(self, row: ActionRow) -> None:
        """Record an action of a person with the next commit, which also has changes that it has just made."""
        self.graph.changes.actions.append(row._replace(time=self.graph.now + self.graph.wall))

    def silence(self, instance: bytes) -> None:
        """Do not call the failure hook of an instance that is cancelled, by its ID."""
        silence_hook(self.graph, self.graph.instances.get(instance))

    # --- paused queues ------------------------------------------------------------------------------

    @property
    def paused(self) -> Mapping[str, PausedQueueRow]:
        """Queues whose nodes are not granted, by name."""
        return self.graph.paused

    def pause(self, queue: str, by: str) -> bool:
        """Stop granting nodes of a queue, also of functions that are not known yet. Nodes that workers hold continue.

        Return whether it was not paused. Raises ResourceExhausted if too many queues are paused.
        """
        if queue in self.graph.paused:
            return False
        if len(self.graph.paused) >= MOST_PAUSED:
            raise ResourceExhausted(f"{MOST_PAUSED} queues are paused already")
        self.graph.set_paused(queue, PausedQueueRow(queue, self.graph.now + self.graph.wall, by))
        return True

    def resume(self, queue: str) -> bool:
        """Grant nodes of a queue again. Return whether it was paused."""
        was_paused = queue in self.graph.paused
        if was_paused:
            self.graph.set_paused(queue, None)
        return was_paused

    def resume_keys(self, queue: str) -> int:
        """End the pauses of keys and shared limits that hold nodes of a queue; return how many there were."""
        return self.graph.end_key_pauses_of(queue)

    # --- schedules ----------------------------------------------------------------------------------

    @property
    def schedules(self) -> Mapping[str, ScheduleRow]:
        """Schedules by name."""
        return self.graph.schedules

    def put_schedule(self, row: ScheduleRow) -> None:
        """Replace a schedule, or add one, with the next commit, which also has what it has just started."""
        self._drop_unwritten(row.name)
        self.graph.schedules[row.name] = row
        self.graph.changes.schedules.append(row)

    def remove_schedule(self, name: str) -> None:
        """Remove a schedule with the next commit."""
        self._drop_unwritten(name)
        del self.graph.schedules[name]
        self.graph.changes.schedules_gone.append(name)

    def _drop_unwritten(self, name: str) -> None:
        changes = self.graph.changes
        changes.schedules = [row for row in changes.schedules if row.name != name]
