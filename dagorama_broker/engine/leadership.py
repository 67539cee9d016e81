"""Whether this broker is the one that may use its store: it waits for that, watches it, and learns that it is over.

A store that several brokers may use has one leader. Commits of a broker that was replaced fail. In addition a broker
that the store has not confirmed for some seconds tells its callers and workers nothing, because another one may lead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from dagorama_broker.engine.commits import Commits
from dagorama_broker.errors import StoreError
from dagorama_broker.store.protocol import Store

#: Seconds between two looks at whether the store still confirms this broker.
LOOK = 0.25
#: Seconds for which a leader may be unsure before probes are told: most restarts of a database are shorter.
SHOWN_AFTER = 5.0
#: Seconds between two looks of a broker that waits until it may tell what it has decided.
_UNSURE = 0.02


async def until_sure(store: Store, commits: Commits) -> None:
    """Wait until the store confirms that this broker leads: what it tells could contradict another one.

    Raise StoreError if the broker stops before.
    """
    while not store.is_sure:
        if commits.stopping:
            raise StoreError("the store did not confirm that this broker leads before it stopped")
        await asyncio.sleep(_UNSURE)


class Leadership:
    """The lead of one broker."""

    def __init__(self, store: Store, stop: asyncio.Event) -> None:
        """`stop` is set when the broker should leave, also by this object when the lead is lost."""
        self._store = store
        self._stop = stop
        self._lost: StoreError | None = None

    async def take(self) -> int | None:
        """Wait until this broker leads, and return its epoch; None if it was stopped before.

        Raise StoreError if the store cannot be used.
        """
        taking = asyncio.ensure_future(asyncio.to_thread(self._store.take))
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((taking, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if taking.done():
            return taking.result()
        self._store.stop_waiting()
        with suppress(StoreError):
            await taking
        return None

    def keep(self) -> None:
        """Stay the leader; if that ends, set `stop`, and `raise_if_lost` says why."""
        loop = asyncio.get_running_loop()

        def lost(error: StoreError) -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._lose, error)

        self._store.keep(lost)

    def _lose(self, error: StoreError) -> None:
        self._lost = error
        self._stop.set()

    def raise_if_lost(self) -> None:
        """Raise Deposed if another broker leads, StoreError if that could not be found out."""
        if self._lost is not None:
            raise self._lost

    async def watch(self, tell: Callable[[bool], Awaitable[None]]) -> None:
        """Call `tell` with False when the store has not confirmed the lead for a while, and with True when it has."""
        shown, unsure_for = True, 0.0
        while not self._store.near:
            await asyncio.sleep(LOOK)
            unsure_for = 0.0 if self._store.is_sure else unsure_for + LOOK
            if shown != (unsure_for < SHOWN_AFTER):
                shown = not shown
                await tell(shown)
