"""Drops functions that no node names, in memory and in the store, and warns of limits that they declare differently.

After many new functions, and some time after instances were removed, the store's nodes are searched in portions. A
function that none of them names is dropped unless something in memory uses it. New ones are left for the next search.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from dagorama_broker.engine.commits import Commits
from dagorama_broker.errors import StoreError, Unavailable
from dagorama_broker.model.rows import Changes
from dagorama_broker.scheduler import ChangedLimit

log = logging.getLogger("dagorama_broker")

#: New functions, and bytes of them, after which the store is searched; or half of the remaining ones, if that is more.
MANY, LARGE = 1_000, 4 << 20
#: Seconds between two searches after a removal of instances.
EVERY = 600.0
#: Nodes that one read returns.
AT_A_TIME = 5_000
#: Uncommitted nodes up to which a search is completed; if there are more, it is tried again later.
UNCOMMITTED = 50_000
#: Seconds before another try.
LATER = 1.0
#: Seconds between two warnings of the same limit, and limits that are remembered for it.
WARN_EVERY, MOST_WARNED = 60.0, 1_000


class Functions:
    """Drops unused functions for as long as its broker runs."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._scheduler = commits.scheduler
        self._wanted = asyncio.Event()
        self._most, self._largest = MANY, LARGE
        self._rounds = 0  # searches to make because instances were removed
        self._warned: dict[str, float] = {}  # when there was a warning of a limit, by its name
        self._candidates: set[int] = set()  # functions that the search under way has not seen

    def look(self) -> None:
        """Begin a search if there are many new functions. Called in each step of the broker."""
        scheduler = self._scheduler
        if len(scheduler.function_queues) > self._most or scheduler.functions_size > self._largest:
            self._wanted.set()

    def removed(self) -> None:
        """Record that instances were removed, which may have been the last to name some functions."""
        self._rounds = 2  # in the first, rows of theirs may still be there

    def warn_of_limits(self, changed: Iterable[ChangedLimit]) -> None:
        """Log limits that functions declare with different figures; each limit at most once in a while."""
        now = time.monotonic()
        for limit in changed:
            if now - self._warned.get(limit.name, -WARN_EVERY) >= WARN_EVERY:
                if len(self._warned) >= MOST_WARNED:
                    self._warned.clear()
                self._warned[limit.name] = now
                log.warning(
                    "the limit %r allows %s from now on, as %s declares; %s had declared %s: give it the same figures"
                    " everywhere", limit.name, limit.now, limit.function, limit.declared_by, limit.before,
                )  # fmt: skip

    async def run(self) -> None:
        """Search whenever it is time, until cancelled or until the broker leaves."""
        while True:
            await self._until_wanted()
            try:
                done = await self._drop_unused()
            except Unavailable:
                return
            except StoreError as error:
                log.error("cannot remove unused functions, will retry: %s", error)
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
        """Exclude functions that a commit names from the search under way."""
        if self._candidates:
            self._candidates -= _named(changes)

    async def _drop_unused(self) -> bool:
        """Drop unused functions. Return False if the caller must try again later."""
        scheduler, queues = self._scheduler, self._scheduler.function_queues
        await self._commits.wait_durable()
        searched = set(queues)
        self._candidates = set(searched)
        try:
            await self._search()
            # Nothing is awaited from here on: what is decided stays valid.
            if len(scheduler.changes.nodes) > UNCOMMITTED:
                return False
            scheduler.drop_functions(self._candidates - _named(scheduler.changes))
        finally:
            self._candidates = set()
        self._commits.mark_changed()
        used = sum(id in searched for id in queues)
        size = scheduler.functions_size * used // max(len(queues), 1)
        self._most, self._largest = used + max(MANY, used // 2), size + max(LARGE, size // 2)
        return True

    async def _search(self) -> None:
        """Remove candidates that a node in the store names."""
        after: int | None = 0
        while after is not None and self._candidates:
            started = time.monotonic()
            named, after = await self._commits.in_store(self._commits.store.functions_of, after, AT_A_TIME)
            self._candidates -= named
            if after is not None:
                await asyncio.sleep(time.monotonic() - started)  # let other calls run for as long


def _named(changes: Changes) -> set[int]:
    """Return functions that these changes name, or that are new in them."""
    named = {row.function for row in changes.nodes}
    return named | {row.function for row in changes.rebound} | {row.id for row in changes.functions}
