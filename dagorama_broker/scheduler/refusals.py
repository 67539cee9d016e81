"""Remembers which functions the workers of a pool could not run, also if none of them is connected any longer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from dagorama_broker.scheduler.requests import WorkerInfo

#: Seconds after a refusal within which a pool is asked for no other worker for that function. After that it is asked
#: for one slot, because its next worker may have other code.
REMEMBERED = 600.0
#: Refusals that are remembered; the oldest ones are forgotten first.
MOST = 10_000


class PoolRules(NamedTuple):
    """The token, queues and taints of workers; to users, workers with the same ones are one pool."""

    owner: str  #: name of the token; empty: any, or none
    include_queues: frozenset[str]
    exclude_queues: frozenset[str]
    tolerations: frozenset[str]

    @property
    def of_any_owner(self) -> PoolRules:
        """These queues and taints, with any token."""
        return self._replace(owner="")


def rules_of(info: WorkerInfo) -> PoolRules:
    """Return the rules of the pool that a worker belongs to.

    Its signing keys are not among them: while keys are replaced, workers of one pool have different ones.
    """
    return PoolRules(info.owner, info.include_queues, info.exclude_queues, info.tolerations)


class Refusals:
    """When workers of a pool have returned a node for good, the last time for each function."""

    def __init__(self) -> None:
        self._at: dict[PoolRules, dict[int, float]] = {}
        self._count = 0

    def note(self, info: WorkerInfo, queue: int, now: float) -> None:
        """Note that a worker has returned a node of this function, by its ID."""
        rules = rules_of(info)
        for each in {rules, rules.of_any_owner}:
            its = self._at.pop(each, {})  # the pools with the latest ones are last
            self._count += queue not in its
            its[queue] = now
            self._at[each] = its
        while self._count > MOST:
            self._count -= len(self._at.pop(next(iter(self._at))))

    def of(self, rules: PoolRules) -> Mapping[int, float]:
        """Return when workers of this pool have returned nodes, by the IDs of functions."""
        return self._at.get(rules, {})

    def withdraw(self, rules: PoolRules, queue: int) -> None:
        """Forget the refusals of a function: a worker of this pool may run it."""
        self._count -= self._at[rules].pop(queue, None) is not None

    def forget(self, queues: Collection[int]) -> None:
        """Forget these functions, by their IDs."""
        for rules in self._at:
            for queue in queues:
                if queue in self._at[rules]:
                    self.withdraw(rules, queue)
