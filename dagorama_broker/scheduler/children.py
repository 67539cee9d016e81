"""Takes the children that running attempts report: staged until their result comes, or made at once.

The second layer of `Scheduler`. Each verb changes everything it must, or refuses and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from dagorama_broker.model.queries import StoredInstance
from dagorama_broker.scheduler.objects import Node, Worker
from dagorama_broker.scheduler.requests import NewNodes
from dagorama_broker.scheduler.views import Views


class Children(Views):
    def may_stage(self, worker: Worker, key: int, attempt: int, cost: int) -> bool:
        """Return whether a running attempt may report children that take `cost` bytes of memory until its result comes.

        If not, its staged children are dropped, and its result will be refused.
        """
        node = self.claims.held(worker, key, attempt)
        if node is None or node.queue.function.stream_children:
            return True  # they are refused, or made at once
        return self.staged.has_room(attempt, cost, self.limits)

    def stage(self, worker: Worker, key: int, attempt: int, block: NewNodes) -> bool:
        """Keep children of a running attempt until its result comes. Return False if the worker does not hold it."""
        if self.claims.held(worker, key, attempt) is None:
            return False
        self.staged.take_in(attempt, block, self.limits)
        return True

    def make(
        self,
        worker: Worker,
        key: int,
        attempt: int,
        block: NewNodes,
        known: Mapping[bytes, Node],
        stored: Collection[StoredInstance] = (),
    ) -> bool:
        """Make children of a running attempt of an eager function, visible at once; existing ones are kept.

        `known` has ended nodes that the block names, `stored` its instance if it is not in memory. Returns False if the
        worker does not hold the attempt. Raises InvalidArgument, NotFound, Conflict or ResourceExhausted.
        """
        node = self.claims.held(worker, key, attempt)
        if node is None:
            return False
        with self._loaded(stored):
            self.eager_attempts.make(node, block, known, self.limits)
        return True

    def report_children(
        self,
        worker: Worker,
        key: int,
        attempt: int,
        block: NewNodes,
        known: Mapping[bytes, Node],
        stored: Collection[StoredInstance] = (),
    ) -> bool:
        """Make children of a running attempt if its function is eager; else stage them. See `make` and `stage`."""
        if self.is_eager(worker, key, attempt):
            return self.make(worker, key, attempt, block, known, stored)
        return self.stage(worker, key, attempt, block)

    @contextmanager
    def _loaded(self, stored: Collection[StoredInstance]) -> Iterator[None]:
        """Hold these instances in memory within the context, and longer if they have unfinished nodes by then."""
        for each in stored:
            self.graph.load_instance(each)
        try:
            yield
        finally:
            self.graph.evict_idle([each.row.id for each in stored])
