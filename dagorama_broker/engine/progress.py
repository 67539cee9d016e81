"""Follows instances for people: how many nodes of each function are in which state.

The rule: watching costs the loop a count of unfinished nodes, at most twice a second and once for all watchers of the
same instance. The store is read in the thread of its view.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from dagorama_broker.engine.commits import CALL_AGAIN, Commits
from dagorama_broker.engine.lookups import Lookups
from dagorama_broker.engine.reports import NodeReport, Reports
from dagorama_broker.engine.turns import Turn
from dagorama_broker.errors import BrokerRefusal, StoreError, Unavailable
from dagorama_broker.model.domain import State
from dagorama_broker.model.queries import FunctionCount, StoredInstance

#: Seconds from one look at an instance to the next, and how many times as long as a look they take at least.
INTERVAL, RESPITE = 0.5, 20
#: Unfinished nodes that are counted between two checks whether other calls should run.
TOGETHER = 1_000


@dataclass(slots=True)
class FunctionProgress:
    """The nodes of one function of an instance."""

    nodes: list[int] = field(default_factory=lambda: [0] * len(State))  #: by state
    timed: int = 0  #: nodes that have ended whose run time is known
    microseconds: int = 0  #: of these together
    longest: int = 0  #: microseconds


class Progress(NamedTuple):
    """The state of an instance at one moment."""

    stored: StoredInstance
    functions: dict[str, FunctionProgress]  #: in the order in which their first nodes were created
    reports: list[NodeReport]  #: of running nodes, the latest first

    @property
    def has_ended(self) -> bool:
        return self.stored.ended is not None


class Watched:
    """An instance that is watched; its latest state is read again as long as it changes."""

    def __init__(self) -> None:
        self.watchers = 0
        self._latest: Progress | None = None
        self._error: Exception | None = None
        self._news = asyncio.Event()

    def tell(self, progress: Progress) -> None:
        if progress != self._latest:
            self._latest = progress
            self._wake()

    def end(self, error: Exception) -> None:
        """Raise this error in all watchers."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def states(self) -> AsyncGenerator[Progress, None]:
        """Yield the latest state whenever it has changed since the last one was yielded, until the instance ends."""
        seen: Progress | None = None
        while seen is None or not seen.has_ended:
            while self._latest is seen:
                if self._error is not None:
                    raise self._error
                await self._news.wait()
            seen = self._latest
            assert seen is not None
            yield seen


class ProgressReader:
    """Reads the state of instances, once for all who watch the same one."""

    def __init__(self, commits: Commits, lookups: Lookups, reports: Reports) -> None:
        self._commits = commits
        self._reports = reports
        self._scheduler = commits.scheduler
        self._view = commits.store.view
        self._lookups = lookups
        self._watched: dict[bytes, tuple[Watched, asyncio.Task[None]]] = {}

    async def read(self, id: bytes) -> Progress:
        """Return the state of an instance. Raises NotFound."""
        with self._lookups.holds.on(id):
            while (found := await self._commits.in_view(self._view.counts, id)) is None:
                await self._lookups.stored_instance(id)  # waits until it is in the store, or raises
            stored, counts = found
            return Progress(stored, self._merged(counts, await self._unfinished(id)), self._reports.of_instance(id))

    async def _unfinished(self, id: bytes) -> Counter[tuple[str, State]]:
        counts, turn = Counter[tuple[str, State]](), Turn()
        for number, node in enumerate(self._scheduler.unfinished_of(id), 1):
            counts[node.queue.function.name, node.state] += 1
            if not number % TOGETHER:
                await turn.share()
        return counts

    def _merged(
        self, stored: Iterable[FunctionCount], unfinished: Counter[tuple[str, State]]
    ) -> dict[str, FunctionProgress]:
        """Join ended nodes, which the store counts, and unfinished ones, whose states only the scheduler knows."""
        functions: dict[str, FunctionProgress] = {}
        left = Counter[str]()  # nodes without an outcome in the store
        for count in sorted(stored, key=lambda count: count.first):
            name = self._scheduler.function_queues[count.function].function.name
            its = functions.setdefault(name, FunctionProgress())
            if count.state is None or count.state == State.RESOLVING:
                left[name] += count.nodes
            else:
                its.nodes[count.state] += count.nodes
            its.timed += count.timed
            its.microseconds += count.microseconds
            its.longest = max(its.longest, count.longest)
        for (name, state), nodes in unfinished.items():
            functions.setdefault(name, FunctionProgress()).nodes[state] += nodes
            left[name] -= nodes
        for name, nodes in left.items():
            functions[name].nodes[State.CLAIMED] += max(0, nodes)  # they have ended since: their results are on the way
        return functions

    @asynccontextmanager
    async def on(self, id: bytes) -> AsyncIterator[Watched]:
        """Follow an instance within the context."""
        if id not in self._watched:
            watched = Watched()
            self._watched[id] = watched, asyncio.create_task(self._follow(id, watched))
        watched, task = self._watched[id]
        watched.watchers += 1
        try:
            yield watched
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[id]
                task.cancel()

    async def _follow(self, id: bytes, watched: Watched) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                start, before = loop.time(), self._version()
                progress = await self.read(id)
                watched.tell(progress)
                if progress.has_ended:
                    return
                await asyncio.sleep(max(INTERVAL, RESPITE * (loop.time() - start)))
                while before == self._version():
                    await asyncio.sleep(INTERVAL)
        except (BrokerRefusal, StoreError) as error:
            watched.end(error)

    def _version(self) -> tuple[int, ...]:
        """Return numbers that change whenever a node has changed its state, or reported something."""
        return (self._commits.count, self._reports.count, self._scheduler.nodes_made, *self._scheduler.counts)

    @property
    def watched(self) -> Collection[bytes]:
        """The IDs of the instances that are watched."""
        return self._watched.keys()

    @property
    def viewers(self) -> int:
        """The number of callers that watch an instance."""
        return sum(watched.watchers for watched, _ in self._watched.values())

    def close(self) -> None:
        """End all watches, because the broker leaves."""
        for watched, _ in self._watched.values():
            watched.end(Unavailable(CALL_AGAIN))
