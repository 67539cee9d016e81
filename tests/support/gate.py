"""Hold up the commits of a broker, and give mistakes the time to show."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.raw import Served


async def settled() -> None:
    """Wait long enough for a mistake to show."""
    await asyncio.sleep(0.05)


class Gate:
    """Hold commits up until each is let through."""

    def __init__(
        self, served: Served, patience: float | None = 10.0, on_held: Callable[[], object] = lambda: None
    ) -> None:
        """`patience`: the seconds for which a commit may be held up; `on_held` is called when one is."""
        self._commit, self._passes = served.broker.store.commit, threading.Semaphore(0)
        self._patience, self._on_held = patience, on_held
        self.waiting = 0
        served.broker.store.commit = self._held_up  # type: ignore[method-assign]  # a gate in its way
        # In its thread: the loop, which these tests live in, has to go on.
        served.broker.commits.thread.may_commit_outside = lambda changes: False  # type: ignore[method-assign]

    def _held_up(self, changes: Any) -> None:
        self.waiting += 1
        self._on_held()
        assert self._passes.acquire(timeout=self._patience)
        self._commit(changes)

    def let_through(self, commits: int = 1) -> None:
        self._passes.release(commits)


@contextmanager
def gate(served: Served) -> Iterator[Gate]:
    gate = Gate(served)
    try:
        yield gate
    finally:
        gate.let_through(1000)
