"""Lets go of functions that no node names any more, in memory and in the store.

When many have come since the last time, the store's nodes are gone through in portions. A function that none of them
names is dropped unless something in memory still uses its lane. What comes meanwhile is left for the next time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from dagorama_broker.errors import NotServing, StoreError
from dagorama_broker.model import Changes

if TYPE_CHECKING:
    from dagorama_broker.broker import Broker

log = logging.getLogger("dagorama_broker")

#: New functions, and bytes of them, after which the store is gone through; or half of what was left, if that is more.
MANY, LARGE = 1_000, 4 << 20
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
        self._candidates: set[int] = set()  # that no node is known to name, while a search goes on

    def look(self) -> None:
        """Begin if many functions have come. Called in each step of the broker."""
        graph = self._broker.scheduler.graph
        if len(graph.lanes) > self._most or graph.functions_size > self._largest:
            self._wanted.set()

    async def run(self) -> None:
        """Until cancelled, or until the broker leaves."""
        while True:
            await self._wanted.wait()
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

    def note(self, changes: Changes) -> None:
        """These changes are about to be committed: what they name is not unused, wherever the search has got to."""
        if self._candidates:
            self._candidates -= _named(changes)

    async def _drop_unused(self) -> bool:
        """Drop those that are unused now; False: it has to be tried again."""
        broker, graph = self._broker, self._broker.scheduler.graph
        await broker.durable()
        self._candidates = set(graph.lane_by_id)
        try:
            await self._search()
            # From here on nothing is awaited: what is decided is still so.
            if len(graph.changes.nodes) > UNCOMMITTED:
                return False
            broker.scheduler.drop_functions(self._candidates - _named(graph.changes))
        finally:
            self._candidates = set()
        broker.touch()
        self._most = len(graph.lanes) + max(MANY, len(graph.lanes) // 2)
        self._largest = graph.functions_size + max(LARGE, graph.functions_size // 2)
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
