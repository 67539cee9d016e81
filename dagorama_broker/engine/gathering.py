"""Lets a commit wait for results that are due in a moment, if all who wait for it wait for these results anyway.

A caller who submits an instance and waits for its value needs two commits, of the instance and of its result. A node
that runs for less than a commit takes has its result before the first one could have ended, so that one commit holds
both: a third of what a short round trip costs the broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import NamedTuple

from dagorama_broker.engine.commits import Commits, Waiter
from dagorama_broker.model.domain import ENDED
from dagorama_broker.model.rows import Changes
from dagorama_broker.scheduler import SHORT_US, Effects, Granted

_COLUMNS = tuple(column.name for column in fields(Changes))
#: Tables whose rows are new, or replace those of earlier steps, so that the rows of two steps may follow each other.
_ADDED = frozenset({
    "functions", "instances", "names", "labels", "instance_ends", "blocks", "nodes", "outcomes", "resolved", "progress",
    "large", "keys", "delays", "traces", "links", "turns",
})  # fmt: skip
_ORDERED = tuple(name for name in _COLUMNS if name not in _ADDED)


class Patience(NamedTuple):
    """How long a commit waits for results, and for which."""

    seconds: float = 0.003  #: at most
    short_us: float = SHORT_US  #: microseconds that a node runs, at most, usually


class Step:
    """What one step of the broker commits, and tells when that is durable."""

    def __init__(self, changes: Changes, effects: Effects, waiting: list[Waiter], *, is_hurried: bool) -> None:
        """`is_hurried`: one of the waiters waits for nothing but the commit."""
        self.changes, self.effects, self.waiting = changes, effects, waiting
        self.is_hurried = is_hurried
        self.later: list[Granted] = []  #: grants that must wait for the commit

    def join(self, more: Step) -> None:
        """Add a later step, before its nodes are granted."""
        for name in _COLUMNS:
            if rows := getattr(more.changes, name):
                getattr(self.changes, name).extend(rows)
        self.effects.join(more.effects)
        self.waiting += more.waiting
        self.is_hurried = self.is_hurried or more.is_hurried


async def gather(step: Step, commits: Commits, patience: Patience, add_next: Callable[[], Awaitable[None]]) -> None:
    """Add what follows a step within a moment, if the step has only granted nodes whose results are due by then.

    `add_next` lets the scheduler decide once more, and adds that to the step.
    """
    running = [granted.node for granted in step.effects.granted]
    is_short = all(node.queue.run_time.short_us <= patience.short_us for node in running)
    if step.later or step.is_hurried or not running or not is_short or not _is_new(step.changes):
        return
    loop = asyncio.get_running_loop()
    until = loop.time() + patience.seconds
    alarm = loop.call_at(until, commits.changed.set)
    try:
        while not (step.later or step.is_hurried or all(node.state in ENDED for node in running)):
            await commits.changed.wait()
            if commits.stopping or loop.time() >= until or not may_join(commits.scheduler.undrained):
                return  # the next step takes what has changed
            commits.changed.clear()
            await add_next()
    finally:
        alarm.cancel()


def _is_new(changes: Changes) -> bool:
    """Return whether changes hold nothing that others wait for."""
    return not changes.outcomes and not changes.progress and may_join(changes)


def may_join(changes: Changes) -> bool:
    """Return whether rows of two steps may be written together: what is deleted or replaced must be there before."""
    return not any(getattr(changes, name) for name in _ORDERED)
