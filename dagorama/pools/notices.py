"""The messages in which a pool reports its changes and its problems. None is repeated in a row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from dagorama.client.addresses import address
from dagorama.client.demand import Demand
from dagorama.client.display.tables import pluralize
from dagorama.logging import get_logger
from dagorama.pools.decision import Decision
from dagorama.pools.engine import EngineRefused, Phase
from dagorama.pools.options import PoolOptions
from dagorama.settings import Settings

#: IDs that a sentence names.
_NAMED = 5
#: Looks in a row at which workers run and none is connected, before that is told: a minute at most.
_PATIENCE = 6


def log(text: str, is_warning: bool) -> None:
    """Write a sentence to the log of dagorama."""
    get_logger().log(logging.WARNING if is_warning else logging.INFO, "%s", text)


def _workers(count: int) -> str:
    return pluralize(count, "worker", "workers")


class Notices:
    """The sentences of one pool."""

    def __init__(self, options: PoolOptions, say: Callable[[str, bool], None]) -> None:
        self._options = options
        self._say = say
        self._told: dict[str, str] = {}
        self._unconnected = 0
        self._size = ""

    def _warn(self, topic: str, text: str) -> None:
        """Tell a warning unless it is the last one of its topic."""
        if self._told.get(topic) != text:
            self._told[topic] = text
            self._say(f"pool {self._options.name}: {text}", True)

    def _settle(self, topic: str, text: str = "") -> None:
        """End a topic, with a sentence if there was one about it."""
        if self._told.pop(topic, "") and text:
            self._say(f"pool {self._options.name}: {text}", False)

    # --- the broker ---------------------------------------------------------------------------------------

    def broker_away(self, why: str) -> None:
        self._warn("broker", f"it keeps its workers and waits, because {why}")

    def demand(self, demand: Demand) -> None:
        """Tell that the broker answers, and which nodes the pool can do nothing about."""
        self._settle("broker", "the broker answers again")
        if demand.unservable:
            nodes = pluralize(demand.unservable, "node", "nodes")
            self._warn("unservable", f"its workers have returned {nodes}: see `dagorama unschedulable`")
        else:
            self._settle("unservable")
        if demand.missing_key:
            nodes = pluralize(demand.missing_key, "node", "nodes")
            self._warn(
                "keys", f"signing keys that this process does not hold have signed {nodes}, and start no workers"
            )
        else:
            self._settle("keys")

    # --- the engine ---------------------------------------------------------------------------------------

    def engine_silent(self, error: EngineRefused) -> None:
        self._warn("engine", f"it cannot see or change its workers now, and will try again: {error}")

    def engine_answers(self) -> None:
        self._settle("engine", "the engine answers again")

    def start_refused(self, count: int, error: EngineRefused, pause: float) -> None:
        self._warn("start", f"{_workers(count)} could not be started: {error}; it tries again in {pause:g} seconds")

    def ended_early(self, count: int, pause: float) -> None:
        self._warn(
            "start",
            f"{_workers(count)} ended within seconds of the start: see the output that the engine keeps; it waits for"
            f" {pause:g} seconds before it starts others",
        )

    def started(self, ids: Sequence[str]) -> None:
        self._settle("start")
        if ids:
            self._say(f"pool {self._options.name}: started {_workers(len(ids))}: {_named(ids)}", False)

    def missing(self, count: int) -> None:
        """Tell that the engine has fewer places than workers are wanted."""
        if not count:
            self._settle("missing")
        elif "start" not in self._told:  # otherwise the reason is told
            self._warn("missing", "the engine has no room for more workers now; the pool asks again every few seconds")

    def drains(self, ids: Sequence[str]) -> None:
        self._say(f"pool {self._options.name}: drains {_workers(len(ids))} without work: {_named(ids)}", False)

    def members(self, demand: Demand, alive: Mapping[str, Phase], decision: Decision) -> None:
        """Tell the size of the pool if it has changed, and if its workers do not reach the broker."""
        running = sum(phase is Phase.RUNNING for phase in alive.values())
        pending = f", {len(alive) - running} pending" if len(alive) > running else ""
        most = ", which is its most" if decision.wanted == self._options.max else ""
        slots = pluralize(demand.slots, "slot is", "slots are")
        size = f"it wants {_workers(decision.wanted)}{most}, and has {running}{pending}"
        if size != self._size:
            self._size = size
            self._say(f"pool {self._options.name}: {slots} needed: {size}", False)
        self._note_connected(running, demand.connected)

    def _note_connected(self, running: int, connected: int) -> None:
        self._unconnected = self._unconnected + 1 if running and not connected else 0
        if self._unconnected >= _PATIENCE:
            where = address(Settings.from_env())
            self._warn(
                "connected",
                f"{_workers(running)} run and none is connected to the broker: check that they reach it at {where}, "
                "and see their output",
            )
        elif connected:
            self._settle("connected")

    def broke(self, error: BaseException) -> None:
        self._warn("end", f"it has ended and starts no more workers: {error}")


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(ids[:_NAMED]) + more
