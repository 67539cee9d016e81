"""Decides how many workers a pool starts and which ones it drains. The rule: no IO, no clock, no memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from dagorama.client.demand import Demand
from dagorama.pools.engine import Phase


class Bounds(NamedTuple):
    """The bounds of a pool."""

    concurrency: int  #: slots of one worker
    least: int  #: workers
    most: int  #: workers
    drain_after: float | None = None  #: seconds without work after which workers are drained; None: none is drained


class Member(NamedTuple):
    """A worker of a pool, as its engine and the broker show it."""

    id: str
    phase: Phase
    idle: float | None = None  #: seconds for which it has held no node; None: it holds one, or that is not known


class Decision(NamedTuple):
    """The next step of a pool."""

    wanted: int  #: workers that take nodes
    staying: int  #: workers to start that stay although they are idle
    leaving: int  #: workers to start that leave by themselves when they are idle
    drain: tuple[str, ...]  #: members to drain

    @property
    def start(self) -> int:
        """Workers to start."""
        return self.staying + self.leaving


def decide(demand: Demand, members: Sequence[Member], bounds: Bounds) -> Decision:
    """Return what to do about a demand; `members` are in the order of their start.

    Members that take no more nodes do not count for the demand, only for the most. Workers that are started below the
    least stay: if they left when they are idle, others would be started in their place, again and again.
    """
    wanted = wanted_workers(demand.slots - demand.leaving_slots, bounds)
    running = sum(member.phase is Phase.RUNNING for member in members)
    serving = len(members) - min(demand.leaving, running)
    start = max(0, min(wanted - serving, bounds.most - len(members)))
    staying = max(0, min(bounds.least - serving, start))
    return Decision(wanted, staying, start - staying, _to_drain(members, serving - wanted, bounds.drain_after))


def wanted_workers(slots: int, bounds: Bounds) -> int:
    """Return the workers whose slots are enough, within the bounds."""
    return max(bounds.least, min(ceil(slots / bounds.concurrency), bounds.most))


def _to_drain(members: Sequence[Member], surplus: int, after: float | None) -> tuple[str, ...]:
    """Return the newest members that are idle for long, at most `surplus`."""
    if after is None or surplus <= 0:
        return ()
    idle = [member.id for member in members if member.idle is not None and member.idle >= after]
    return tuple(reversed(idle[-surplus:]))
