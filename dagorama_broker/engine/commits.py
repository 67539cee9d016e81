"""The thread that the store's calls are made in, one after another; and when a commit need not go there.

A commit that is short costs less in the loop itself: going to another thread and back takes as long as half of it. Only
while the disk is quick, though, for the loop stands still meanwhile; and only while the thread has nothing to do, so
that no two threads are in the store at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

from dagorama_broker.model.rows import Changes

P = ParamSpec("P")
T = TypeVar("T")

#: Rows up to which a commit is short.
FEW = 8
#: Seconds that short ones take, on the whole, on a disk that is quick.
QUICK = 0.001


class StoreThread(ThreadPoolExecutor):
    """`few`: rows up to which a commit may be made by the caller; 0: none is."""

    def __init__(self, few: int = FEW) -> None:
        super().__init__(1, thread_name_prefix="store")
        self._few = few
        self._jobs: list[Future[Any]] = []
        self._seconds = QUICK  # of a short commit, on the whole; the first ones show whether it is less

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        job = super().submit(fn, *args, **kwargs)
        self._jobs = [*(other for other in self._jobs if not other.done()), job]
        return job

    def may_commit_outside(self, changes: Changes) -> bool:
        """Whether the caller had better make this commit itself."""
        return self._seconds < QUICK and self._is_short(changes) and all(job.done() for job in self._jobs)

    def timed(self, commit: Callable[[Changes], None], changes: Changes) -> None:
        """Make a commit, wherever, and see how long it takes."""
        start = perf_counter()
        commit(changes)
        if self._is_short(changes):
            seconds = perf_counter() - start
            # It rises at once and falls slowly: to stand still is the greater evil.
            self._seconds = max(seconds, self._seconds * 0.9 + seconds * 0.1)

    def _is_short(self, changes: Changes) -> bool:
        if not self._few or changes.removed or changes.revived or changes.functions_gone:
            return False
        return len(changes.nodes) + len(changes.outcomes) + len(changes.instances) + len(changes.resolved) <= self._few
