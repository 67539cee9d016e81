"""Remembers for a while which functions the workers of a pool could not run, also if none of them is connected."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from dagorama_broker.scheduler.requests import WorkerInfo

#: Seconds for which a refusal is remembered. After that a pool without workers is asked for one again, because its
#: workers may have other code by then.
REMEMBERED = 600.0
#: Refusals from which forgotten ones are removed, and the most that are kept.
MANY, MOST = 1_000, 10_000


class PoolRules(NamedTuple):
    """The queues and taints that workers are started for; workers with the same ones are one pool for people."""

    include_queues: frozenset[str]
    exclude_queues: frozenset[str]
    tolerations: frozenset[str]


def rules_of(info: WorkerInfo) -> PoolRules:
    """Return the rules of the pool that a worker belongs to.

    Its signing keys are not among them: while keys are replaced, workers of one pool have different ones.
    """
    return PoolRules(info.include_queues, info.exclude_queues, info.tolerations)


class Refusals:
    """When workers of a pool have returned a node for good, the last time for each function."""

    def __init__(self) -> None:
        self._at: dict[tuple[PoolRules, int], float] = {}

    def note(self, info: WorkerInfo, queue: int, now: float) -> None:
        """Note that a worker has returned a node of this function, by its id."""
        if len(self._at) >= MANY:
            self._at = {key: at for key, at in self._at.items() if now - at < REMEMBERED}
            while len(self._at) >= MOST:
                del self._at[next(iter(self._at))]
        key = rules_of(info), queue
        self._at.pop(key, None)  # the latest ones are last
        self._at[key] = now

    def of(self, rules: PoolRules, now: float) -> Collection[int]:
        """Return the functions, by their ids, that workers with these rules have returned lately."""
        return {queue for (whose, queue), at in self._at.items() if whose == rules and now - at < REMEMBERED}

    def forget(self, queues: Collection[int]) -> None:
        """Forget these functions, by their ids."""
        self._at = {key: at for key, at in self._at.items() if key[1] not in queues}
