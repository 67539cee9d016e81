"""The same submission again: a client whose reply was lost sends it twice, and it has one effect and one answer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from dagorama_broker.engine.loading import Reach
from dagorama_broker.errors import Conflict
from dagorama_broker.model.rows import Changes
from dagorama_broker.scheduler import NewRun
from dagorama_broker.scheduler.graph import Graph

if TYPE_CHECKING:
    from dagorama_broker.engine.broker import Broker

_FIRST = attrgetter("first")


class Unwritten:
    """Ids of instances and origins of runs that the heart has taken in and the store does not have yet."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._changes: Changes | None = None  #: whose rows `_gathered` has
        self._gathered: set[bytes] = set()
        self._runs = self._instances = 0  #: rows seen of `_changes`
        self._in_flight: set[bytes] = set()

    def __contains__(self, id: object) -> bool:
        self._look()
        return id in self._gathered or id in self._in_flight

    def _look(self) -> None:
        changes = self._graph.changes
        if changes is not self._changes:
            self._changes, self._gathered, self._runs, self._instances = changes, set(), 0, 0
        if len(changes.runs) > self._runs:
            self._gathered.update([row.origin for row in changes.runs[self._runs :]])
            self._runs = len(changes.runs)
        if len(changes.instances) > self._instances:
            self._gathered.update([row.id for row in changes.instances[self._instances :]])
            self._instances = len(changes.instances)

    def about_to_drain(self) -> None:
        """What has gathered goes into the next commit."""
        self._look()
        self._in_flight = self._gathered

    def written(self) -> None:
        self._in_flight = set()


def left_to_make(broker: Broker, runs: Sequence[NewRun], reach: Reach) -> list[NewRun]:
    """The runs that no earlier call has made. Raises Conflict where one was made with other content."""
    return [run for run in runs if not is_made(broker, run, reach)]


def is_made(broker: Broker, run: NewRun, reach: Reach) -> bool:
    """Return whether an earlier call has made this run. Raises Conflict if it was made with other content."""
    if not run.lanes:
        return _is_made_empty(broker, run, reach)
    if run.creates is not None and _is_new(broker, run):
        return False
    digest = _made_as(broker, run)
    if digest is not None:
        _refuse_removed(broker, run)
        if digest != run.digest:
            raise Conflict(f"node {run.origin.hex()}, counter {run.first}, exists already, with other content")
        return True
    if run.creates is not None and broker.has_instance(run.instance):
        _refuse_removed(broker, run)
        raise _other_instance(run)
    return False


def _is_new(broker: Broker, run: NewRun) -> bool:
    """Whether nothing was ever made under its ids."""
    graph, unwritten, id, origin = broker.scheduler.graph, broker.unwritten, run.instance, run.origin
    if origin in graph.origins or id in graph.instances or origin in unwritten or id in unwritten:
        return False
    return broker.store.is_new(id, origin)


def _is_made_empty(broker: Broker, run: NewRun, reach: Reach) -> bool:
    """An instance without nodes has left no run behind: what is compared is the instance."""
    if run.creates is None or not broker.has_instance(run.instance):
        return False
    row = reach.instances[run.instance].row
    if (row.definition, row.entry) != run.creates:
        raise _other_instance(run)
    return True


def _refuse_removed(broker: Broker, run: NewRun) -> None:
    """Raise NotKnown where the instance was removed: what it had is not made anew by a request that comes late."""
    if broker.store.removed(run.instance) is not None:
        raise broker.not_known(run.instance)


def _other_instance(run: NewRun) -> Conflict:
    return Conflict(f"instance {run.instance.hex()} exists already, with other content")


def _made_as(broker: Broker, run: NewRun) -> bytes | None:
    """The digest of what was made under any of the run's counters; None: nothing was."""
    end = run.first + len(run.lanes)
    in_memory = broker.scheduler.graph.origins.get(run.origin, ())
    place = bisect_left(in_memory, end, key=_FIRST) - 1
    if place >= 0 and in_memory[place].first + in_memory[place].count > run.first:
        return in_memory[place].digest
    stored = broker.store.last_run(run.origin, end)
    if stored is not None and stored.first + stored.size > run.first:
        return stored.digest
    return None


def refuse_made(broker: Broker, run: NewRun) -> None:
    """Raise Conflict where ids of a run that a worker reports are in the store already: no commit could hold it."""
    stored = broker.store.last_run(run.origin, run.first + len(run.lanes))
    if stored is not None and stored.first + stored.size > run.first:
        raise Conflict(f"node {run.origin.hex()}, counter {run.first}, exists already")
    if run.creates is not None and broker.has_instance(run.instance):
        raise _other_instance(run)
