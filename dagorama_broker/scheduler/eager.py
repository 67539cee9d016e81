"""Makes the children of eager functions while their parents run, and cancels them if the parent's attempt fails.

There is one record for each attempt that makes such children, with their runs of nodes, and none for a node. When the
attempt completes, they stay; when it fails or is lost, the unfinished ones are cancelled, and so are their children. So
if a node that depends on such an attempt completes with children, they depend on the attempt too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

from dagorama_broker.errors import Malformed, TooMuch
from dagorama_broker.model.domain import CANCELLATION, Failure, Fate
from dagorama_broker.model.queries import Live, MadeRun
from dagorama_broker.model.rows import BroodRow, BroodRunRow
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.limits import Limits
from dagorama_broker.scheduler.objects import Brood, Instance, Node, Run
from dagorama_broker.scheduler.requests import NewRun
from dagorama_broker.scheduler.staged_children import cost_of
from dagorama_broker.scheduler.submission import Plan


class Broods:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.open: dict[int, Brood] = {}  #: of running attempts, by the key of their node
        self.forsaken: list[Brood] = []  #: of failed attempts, until their children are cancelled

    # --- making children ------------------------------------------------------------------------------

    def make(self, node: Node, new: NewRun, known: Mapping[bytes, Node], limits: Limits) -> None:
        """Make children of a running attempt of an eager function, once: children that it has made already are kept.

        Raises Malformed, NotKnown, Conflict or TooMuch; then nothing has changed.
        """
        if self.has_made(node.key, new):
            return
        brood = self.open.get(node.key) or self._new(node)
        size, cost = sum(map(len, new.arguments)), cost_of(new)
        limits.check_attempt(brood.nodes + new.count, brood.size + size)
        if too_much := limits.too_much_staged(brood.cost + cost, 0):
            raise TooMuch(too_much)
        limits.check_sources(new.sources)
        plan = Plan(self._graph, [new], known)
        self._refuse_others(brood, node, new, plan.runs)
        plan.make(node.key)
        brood.size += size
        brood.cost += cost
        if node.key not in self.open:
            self.open[node.key] = brood
            self._record(brood)
        self._take_in(brood, node.instance, plan.runs)

    def has_made(self, key: int, new: NewRun) -> bool:
        """Return whether the running attempt of this node has made these children already."""
        brood = self.open.get(key)
        return brood is not None and (new.origin, new.first, new.count) in brood.runs

    def origin_of(self, key: int) -> bytes:
        """Return the origin of the running attempt's children in the node's own instance; empty: none."""
        brood = self.open.get(key)
        return brood.origin if brood is not None else b""

    def follow(self, node: Node, runs: Iterable[Run]) -> None:
        """Let the children of a completing node depend on the attempt that the node itself depends on, if any."""
        among = node.run.brood if node.run is not None else None
        top = _top(among)
        if top is None:
            return
        brood = self._new(node)
        self._release(brood)
        self._take_in(brood, node.instance, runs)

    def _new(self, node: Node) -> Brood:
        among = node.run.brood if node.run is not None else None
        return Brood(node.attempt, node.key, node.lane.function.name, among if _top(among) is not None else None)

    def _refuse_others(self, brood: Brood, node: Node, new: NewRun, runs: Iterable[Run]) -> None:
        homes = {node.instance.key} | brood.instances
        if new.creates is None and any(run.instance.key not in homes for run in runs):
            raise Malformed("an attempt may make nodes in its own instance and in new ones only")

    def _take_in(self, brood: Brood, own: Instance, runs: Iterable[Run]) -> None:
        for run in runs:
            self._hold(brood, own.key, run)
            if run.count:
                self._graph.changes.brood_runs.append(BroodRunRow(run.first_key, brood.attempt))

    def _hold(self, brood: Brood, own: int, run: Run) -> None:
        run.brood = brood
        brood.runs[run.origin, run.first, run.count] = run
        brood.instances.add(run.instance.key)
        brood.nodes += run.count
        if run.instance.key == own:
            brood.origin = run.origin

    # --- ending ---------------------------------------------------------------------------------------

    def release(self, node: Node) -> None:
        """Keep the children of an attempt that has completed."""
        brood = self.open.pop(node.key, None)
        if brood is not None:
            self._release(brood)

    def _release(self, brood: Brood) -> None:
        brood.fate = Fate.RELEASED
        self._record(brood)
        brood.top = _top(brood.within)
        if brood.top is not None:
            brood.top.parts.append(brood)
        else:
            brood.runs.clear()
            brood.parts.clear()

    def granted(self, node: Node) -> None:
        """Abort an earlier attempt if the node is claimed under another one."""
        brood = self.open.get(node.key)
        if brood is not None and brood.attempt != node.attempt:
            self.forsake(node)

    def forsake(self, node: Node) -> None:
        """Abort the last attempt of a node. Its children must be cancelled within the same step."""
        brood = self.open.pop(node.key, None)
        if brood is not None:
            self.forsaken.append(brood)

    def bury(self, brood: Brood) -> None:
        """Record that an attempt was aborted, so that it is refused when a worker presents it later."""
        brood.fate = Fate.DEAD
        self._record(brood)
        node = self._graph.nodes.get(brood.node)
        if node is not None:
            self._graph.trouble(node)
            self._graph.record_trouble(node)

    def disown(self, made: Iterable[MadeRun], attempts: Mapping[int, int]) -> None:
        """Record completed attempts as aborted ones for their children, because their nodes run again.

        `attempts` has the recorded attempt of each node that runs again.
        """
        changes = self._graph.changes
        dead: dict[int, BroodRow] = {}
        for run, root, brood in made:
            if brood is None:
                brood = BroodRow(attempts[root], root, 0, Fate.DEAD)
                changes.brood_runs.append(BroodRunRow(run.first_key, brood.attempt))
            dead[brood.attempt] = brood._replace(fate=Fate.DEAD)
        changes.broods += dead.values()

    def unfinished(self, brood: Brood) -> Iterator[Node]:
        """Yield the unfinished nodes that depend on this attempt."""
        nodes, stack = self._graph.nodes, [brood]
        while stack:
            part = stack.pop()
            stack += part.parts
            for run in part.runs.values():
                for key in range(run.first_key, run.first_key + run.count):
                    node = nodes.get(key)
                    if node is not None:
                        yield node

    def _record(self, brood: Brood) -> None:
        within = brood.within.attempt if brood.within is not None else 0
        self._graph.changes.broods.append(BroodRow(brood.attempt, brood.node, within, brood.fate))

    # --- after a restart ------------------------------------------------------------------------------

    def rebuild(self, live: Live) -> None:
        """Load what an earlier broker left, before anything is granted."""
        if not live.broods:
            return
        known: dict[int, Brood] = {}
        owns = {row.key: row.instance for row in live.nodes}
        for row in live.broods:
            known[row.attempt] = self._rebuilt(row, known.get(row.within))
        runs = {run.first_key: run for each in self._graph.instances.values() for run in each.runs}
        for attempt, made in live.brood_runs:
            run = runs.get(made.first_key) or Run(
                made.origin, made.first, made.size, made.first_key, Instance(made.instance, b"")
            )
            self._hold(known[attempt], owns.get(known[attempt].node, 0), run)

    def _rebuilt(self, row: BroodRow, within: Brood | None) -> Brood:
        node = self._graph.nodes.get(row.node)
        brood = Brood(row.attempt, row.node, node.lane.function.name if node is not None else "", within)
        brood.fate = Fate(row.fate)
        if brood.fate is Fate.OPEN and node is not None:
            self.open[row.node] = brood
            node.attempt = max(node.attempt, row.attempt)
        elif brood.fate is Fate.RELEASED:
            brood.top = _top(within)
            if brood.top is not None:
                brood.top.parts.append(brood)
        return brood


def epitaph(brood: Brood) -> Callable[[Node], bytes]:
    """Return a function that makes the failure of nodes that are cancelled because this attempt was aborted."""
    return cancellation(f"the run of {brood.function} that made it was rolled back")


def cancellation(message: str) -> Callable[[Node], bytes]:
    """Return a function that makes the failure of cancelled nodes with this message."""

    @cache
    def packed(function: str) -> bytes:
        return Failure(function, CANCELLATION, message, "", b"", 0).packed()

    return lambda node: packed(node.lane.function.name)


def _top(brood: Brood | None) -> Brood | None:
    """Return the running attempt that children depend on; None: they depend on none."""
    passed = []
    while brood is not None and brood.fate is Fate.RELEASED:
        passed.append(brood)
        brood = brood.top
    for each in passed:
        each.top = brood
    return brood
