"""Faults of failure hooks; lives with hooks have to find them."""

from __future__ import annotations

from typing import Any

from dagorama_broker.engine import ahead
from dagorama_broker.model.hooks import HookRow
from dagorama_broker.scheduler import Scheduler, scheduler
from dagorama_broker.scheduler.endings import Endings
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.store.memory.store import MemoryStore

from .mutants import MUTANTS, mutant

_EARLIER = set(MUTANTS)


@mutant("an instance ends in one commit and its hook is called in the next", (scheduler, "call_hooks"))
def _(call_hooks: Any) -> Any:
    def late(graph: Graph) -> bool:
        told, graph.told = getattr(graph, "told", []), list(graph.calling)  # type: ignore[attr-defined]  # its own
        graph.calling.clear()
        for instance in graph.told:  # type: ignore[attr-defined]  # its own
            graph.end_instance(instance)
        for instance in told:
            graph.instances[instance.id] = instance
            graph.calling.append(instance)
        return bool(call_hooks(graph))

    return late


@mutant("hooks are forgotten at a restart", (MemoryStore, "live"))
def _(live: Any) -> Any:
    def without(self: MemoryStore) -> Any:
        found = live(self)
        found.hooks.clear()
        return found

    return without


@mutant("a hook that has failed is called again", (HookRow, "silenced"))
def _(silenced: Any) -> Any:
    return lambda self: self._replace(failure=b"")


@mutant("a failure is noted in memory only", (Endings, "set_hook"))
def _(set_hook: Any) -> Any:
    def unrecorded(self: Endings, instance: Any, hook: HookRow) -> None:
        instance.hook = hook
        if not hook.failure:
            self.changes.hooks.append(hook)

    return unrecorded


@mutant("a hook is given out before the failure is on disk", (ahead, "FIRST_HOOK"))
def _(first: int) -> Any:
    return 1 << 33


@mutant("the hook of a cancelled instance is called", (Scheduler, "silence"))
def _(silence: Any) -> Any:
    return lambda self, instance: None


#: The mutants of this module, which lives with hooks have to find.
HOOKS = MUTANTS.keys() - _EARLIER
