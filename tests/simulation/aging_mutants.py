"""Faults of removal and of retries by a person; lives in which instances age have to find them."""

from __future__ import annotations

from typing import Any

from dagorama_broker.engine import retries
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.loading import Loaded
from dagorama_broker.engine.lookups import InstanceLocks
from dagorama_broker.engine.retention import Retention
from dagorama_broker.engine.retention_policy import RetentionPolicy
from dagorama_broker.model.queries import Failed
from dagorama_broker.model.rows import Changes
from dagorama_broker.rpc import service as service_module
from dagorama_broker.scheduler import retry, scheduler
from dagorama_broker.scheduler.claims import Claims
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.store.memory.retention import MemoryRetention
from dagorama_broker.store.memory.store import MemoryStore

from .mutants import MUTANTS, mutant

_EARLIER = set(MUTANTS)

# --- removal ----------------------------------------------------------------------------------------------


@mutant("removed before its time", (RetentionPolicy, "kept"))
def _(kept: Any) -> Any:
    return lambda self, failed: kept(self, failed) / 2


@mutant("failed instances are removed as soon as others", (RetentionPolicy, "kept"))
def _(kept: Any) -> Any:
    return lambda self, failed: kept(self, False)


@mutant("removed while it has an unfinished node again", (Retention, "_unneeded"))
def _(unneeded: Any) -> Any:
    return lambda self, expired: list(expired)


@mutant("removed though a value is about to name it", (Retention, "_uncommitted"))
def _(uncommitted: Any) -> Any:
    return lambda self: (Changes(), Changes())


@mutant("removed though a value names it", (MemoryRetention, "link"))
def _(link: Any) -> Any:
    return lambda self, rows: None


@mutant("removed while a call is reading it", (InstanceLocks, "__contains__"))
def _(contains: Any) -> Any:
    return lambda self, id: False


@mutant("a call goes on with what was removed meanwhile", (Loaded, "without_gone"))
def _(without_gone: Any) -> Any:
    return lambda self: self


@mutant("a removed instance is made again", (MemoryStore, "removed"))
def _(removed: Any) -> Any:
    return lambda self, id: None


@mutant("rows of what was removed stay", (MemoryStore, "sweep"))
def _(sweep: Any) -> Any:
    return lambda self, most: False


@mutant("instances that name each other stay", (Retention, "_knot"))
def _(knot: Any) -> Any:
    return lambda self, now: []


# --- retries by a person ----------------------------------------------------------------------------------


@mutant("a retry is answered before it is durable", (service_module, "retry"))
def _(retry: Any) -> Any:
    async def unheard(broker: Broker, asked: retries.Asked) -> retries.Done:
        async with broker.retry_lock:
            with broker.lookups.holds.on(asked.instance):
                return await retries._retry(broker, asked)

    return unheard


@mutant("a retry leaves what failed because of another", (scheduler, "retry_failed"))
def _(revive: Any) -> Any:
    def shallow(claims: Claims, failed: Failed) -> Any:
        failed.nodes = [row for row in failed.nodes if row.root_cause in (0, row.key)]
        return revive(claims, failed)

    return shallow


@mutant("a retry leaves what was given the failure as a value", (service_module, "Asked"))
def _(asked: Any) -> Any:
    return lambda *arguments: asked(*arguments)._replace(downstream=False)


@mutant("an instance that runs again counts as ended", (retry, "_reopen"))
def _(reopen: Any) -> Any:
    def ended(graph: Graph, stored: Any, others: Any) -> Any:
        changes = graph.changes
        before = len(changes.instance_ends)
        instance = reopen(graph, stored, others)
        del changes.instance_ends[before:]
        return instance

    return ended


@mutant("an attempt from before a retry is believed", (Claims, "invalidate_attempt"))
def _(spend: Any) -> Any:
    return lambda self, node: None


@mutant("a retried node goes on counting its runs", (retry, "FailureCounts"))
def _(trouble: Any) -> Any:
    return lambda: trouble(failed_attempts=2)


AGING = frozenset(MUTANTS) - _EARLIER
