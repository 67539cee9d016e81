"""Cancels nodes on request, in slices, and answers when all of it is durable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from dagorama_broker.engine.clock import advance_clock
from dagorama_broker.engine.commits import Commits
from dagorama_broker.engine.lookups import Lookups, check_instance
from dagorama_broker.model.actions import ActionKind, ActionRow
from dagorama_broker.scheduler import Node, Tally


class Cancellation:
    """Cancels nodes and instances of a broker."""

    def __init__(self, commits: Commits, lookups: Lookups) -> None:
        self._commits = commits
        self._lookups = lookups
        self._scheduler = commits.scheduler

    async def cancel(self, instance: bytes, ids: Sequence[bytes], by: str) -> int:
        """Cancel these nodes of an instance, or all of it, with what depends on them; return how many were cancelled.

        `by` is the name of the caller's token, for the record of the action. Ended nodes stay as they are. If the
        broker dies between two slices, some of the nodes are cancelled, and the client calls again. Raises NotFound or
        InvalidArgument, and then nothing has changed.
        """
        scheduler, commits = self._scheduler, self._commits
        if not ids:
            scheduler.silence(instance)
        nodes = iter(await self._live(instance, ids) if ids else await self._all(instance))
        tally, step, recorded = Tally(), scheduler.limits.step, 0
        while portion := list(islice(nodes, step)):
            scheduler.cancel(portion, advance_clock(scheduler, commits.clock), tally)
            if not tally.open and scheduler.instance(instance) is None:  # all of it: one commit has both
                recorded = self._record(instance, by, tally.count)
            await commits.wait_durable()
        while tally.open:
            await commits.wait_durable()
        self._record(instance, by, tally.count - recorded)
        await commits.wait_durable()
        return tally.count

    def _record(self, instance: bytes, by: str, cancelled: int) -> int:
        """Record the action with the next commit, if it has cancelled nodes; return how many."""
        if cancelled:
            self._scheduler.record_action(ActionRow(ActionKind.CANCEL, by, instance, nodes=cancelled))
        return cancelled

    async def _all(self, instance: bytes) -> Iterator[Node]:
        if self._scheduler.instance(instance) is None:
            await self._lookups.stored_instance(instance)
        return self._scheduler.unfinished_of(instance)

    async def _live(self, instance: bytes, ids: Sequence[bytes]) -> Iterable[Node]:
        """Return the unfinished ones of these nodes."""
        find = self._scheduler.node
        ended = [id for id in ids if find(id) is None]
        if ended:
            await self._lookups.find_nodes(instance, ended)
        nodes = {id: node for id in ids if (node := find(id)) is not None}
        for id, node in nodes.items():
            check_instance(id, instance, is_own=node.instance.id == instance)
        return nodes.values()
