"""Lets go of functions that no node names any more, in memory and in the store.

When many have come since the last time, and some time after instances were removed, the store's nodes are gone through
in portions. A function that none of them names is dropped unless something in memory still uses its lane. What comes
meanwhile is left for the next time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from dagorama_broker.errors import NotServing, StoreError
from dagorama_broker.model.rows import Changes

if TYPE_CHECKING:
    from dagorama_broker.engine.broker import Broker

log = logging.getLogger("dagorama_broker")

#: New functions, and bytes of them, after which the store is gone through; or half of what was left, if that is more.
MANY, LARGE = 1_000, 4 << 20
#: Seconds between two searches because instances were removed.
EVERY = 600.0
#: Nodes that are read from the store at a time.
AT_A_TIME = 5_000
#: Uncommitted nodes that are looked at in one go; if there are more, this is tried again later.
UNCOMMITTED = 50_000
#: Seconds before it is tried again.
LATER = 1.0


class Functions:
    """Drops unused functions for as long as its broker runs."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._wanted = asyncio.Event()
        self._most, self._largest = MANY, LARGE
        self._rounds = 0  # of searches to be made because instances were removed
        self._candidates: set[int] = set()  # that no node is known to name, while a search goes on

    def look(self) -> None:
        """Begin if many functions have come. Called in each step of the broker."""
        graph = self._broker.scheduler.graph
        if len(graph.lanes) > self._most or graph.functions_size > self._largest:
            self._wanted.set()

    def removed(self) -> None:
        """Instances were removed, and may have been the last to name some functions."""
        self._rounds = 2  # in the first, rows of theirs may still be there

    async def run(self) -> None:
        """Until cancelled, or until the broker leaves."""
        while True:
            await self._until_wanted()
            try:
                done = await self._drop_unused()
            except NotServing:
                return
            except StoreError as error:
                log.error("functions that no node names cannot be removed, which is tried again later: %s", error)
                done = False
            self._wanted.clear()
            if not done:
                await asyncio.sleep(LATER)
            self.look()

    async def _until_wanted(self) -> None:
        while True:
            try:
                async with asyncio.timeout(EVERY):
                    await self._wanted.wait()
                    return
            except TimeoutError:
                if self._rounds:
                    self._rounds -= 1
                    return

    def note(self, changes: Changes) -> None:
        """These changes are about to be committed: what they name is not unused, wherever the search has got to."""
        if self._candidates:
            self._candidates -= _named(changes)

    async def _drop_unused(self) -> bool:
        """Drop those that are unused now; False: it has to be tried again."""
        broker, graph = self._broker, self._broker.scheduler.graph
        await broker.durable()
        searched = set(graph.lane_by_id)
        self._candidates = set(searched)
        try:
            await self._search()
            # From here on nothing is awaited: what is decided is still so.
            if len(graph.changes.nodes) > UNCOMMITTED:
                return False
            broker.scheduler.drop_functions(self._candidates - _named(graph.changes))
        finally:
            self._candidates = set()
        broker.touch()
        used = sum(id in searched for id in graph.lane_by_id)
        size = graph.functions_size * used // max(len(graph.lane_by_id), 1)
        self._most, self._largest = used + max(MANY, used // 2), size + max(LARGE, size // 2)
        return True

    async def _search(self) -> None:
        """Strike out the candidates that a node in the store names."""
        after: int | None = 0
        while after is not None and self._candidates:
            started = time.monotonic()
            named, after = await self._broker.in_store(self._broker.store.functions_of, after, AT_A_TIME)
            self._candidates -= named
            if after is not None:
                await asyncio.sleep(time.monotonic() - started)  # as long for others as it took


def _named(changes: Changes) -> set[int]:
    """Functions that these changes name, or that the store does not know yet."""
    named = {row.function for row in changes.nodes}
    return named | {row.function for row in changes.adopted} | {row.id for row in changes.functions}
