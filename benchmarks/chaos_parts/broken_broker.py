"""A broker with one promise broken, to see that chaos.py would notice: BREAK says which."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

from dagorama_broker.cli import main
from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import BrokerRefusal
from dagorama_broker.scheduler.scheduler import Scheduler
from dagorama_broker.scheduler.submission import SubmissionPlan


def break_fencing() -> None:
    """Accept a result that comes too late, and the children that it brings."""
    stage, complete = Scheduler.stage, Scheduler.complete
    late: dict[int, list[Any]] = {}

    def keep(self: Any, worker: Any, key: int, attempt: int, block: Any) -> bool:
        if not stage(self, worker, key, attempt, block):
            late.setdefault(attempt, []).append(block)
        return True

    def believe(self: Any, worker: Any, key: int, attempt: int, *rest: Any, **named: Any) -> bool:
        make(self, late.pop(attempt, []))
        return complete(self, worker, key, attempt, *rest, **named)

    Scheduler.stage, Scheduler.complete = keep, believe  # type: ignore[method-assign]


def make(scheduler: Scheduler, runs: list[Any]) -> None:
    """Make nodes, where their instance has not ended."""
    with suppress(BrokerRefusal):
        SubmissionPlan(scheduler.graph, runs, {}).make()


def break_acknowledgement() -> None:
    """Answer calls before the commit that holds their change."""
    commit = Broker._commit
    late: list[asyncio.Task[None]] = []

    async def after(before: list[asyncio.Task[None]], self: Broker, changes: Any) -> None:
        await asyncio.gather(*before)
        await asyncio.sleep(0.1)
        await commit(self, changes)

    async def early(self: Broker, changes: Any) -> None:
        late[:] = [asyncio.create_task(after(late[-1:], self, changes))]

    Broker._commit = early  # type: ignore[method-assign]


def break_children() -> None:
    """Children are visible as they come, even if the attempt that made them fails."""
    stage = Scheduler.stage

    def early(self: Any, worker: Any, key: int, attempt: int, block: Any) -> bool:
        if not stage(self, worker, key, attempt, block):
            make(self, [block])
            return False
        return True

    Scheduler.stage = early  # type: ignore[method-assign]


BREAKS = {"fencing": break_fencing, "ack-before-commit": break_acknowledgement, "children-early": break_children}

if __name__ == "__main__":
    what = os.environ.get("BREAK", "")
    if what:
        BREAKS[what]()
    main()
