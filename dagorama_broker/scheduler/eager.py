"""Makes the children of eager functions while their parents run, and cancels them if the parent's attempt fails.

There is one record for each attempt that makes such children, with their runs of nodes, and none for a node. When the
attempt completes, they stay; when it fails or is lost, the unfinished ones are cancelled, and so are their children. So
if a node that depends on such an attempt completes with children, they depend on the attempt too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

from dagorama_broker.errors import InvalidArgument, ResourceExhausted
from dagorama_broker.model.domain import CANCELLATION, EagerState, Failure
from dagorama_broker.model.queries import CreatedBlock, Live
from dagorama_broker.model.rows import EagerAttemptRow, EagerBlockRow
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.limits import Limits
from dagorama_broker.scheduler.objects import EagerAttempt, Instance, Node, NodeBlock
from dagorama_broker.scheduler.requests import NewNodes
from dagorama_broker.scheduler.staged_children import cost_of
from dagorama_broker.scheduler.submission import SubmissionPlan


class EagerAttempts:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.open: dict[int, EagerAttempt] = {}  #: of running attempts, by the key of their node
        self.aborted: list[EagerAttempt] = []  #: of failed attempts, until their children are cancelled

    # --- making children ------------------------------------------------------------------------------

    def make(self, node: Node, new: NewNodes, known: Mapping[bytes, Node], limits: Limits) -> None:
        """Make children of a running attempt of an eager function, once: children that it has made already are kept.

        Raises InvalidArgument, NotFound, Conflict or ResourceExhausted; then nothing has changed.
        """
        if self.has_made(node.key, new):
            return
        brood = self.open.get(node.key) or self._new(node)
        size, cost = sum(map(len, new.arguments)), cost_of(new)
        limits.check_attempt(brood.nodes + new.count, brood.size + size)
        if too_much := limits.too_much_staged(brood.cost + cost, 0):
            raise ResourceExhausted(too_much)
        limits.check_sources(new.sources)
        plan = SubmissionPlan(self._graph, [new], known)
        self._refuse_others(brood, node, new, plan.runs)
        plan.make(node.key)
        brood.size += size
        brood.cost += cost
        if node.key not in self.open:
            self.open[node.key] = brood
            self._record(brood)
        self._take_in(brood, node.instance, plan.runs)

    def has_made(self, key: int, new: NewNodes) -> bool:
        """Return whether the running attempt of this node has made these children already."""
        brood = self.open.get(key)
        return brood is not None and (new.origin, new.first, new.count) in brood.runs

    def origin_of(self, key: int) -> bytes:
        """Return the origin of the running attempt's children in the node's own instance; empty: none."""
        brood = self.open.get(key)
        return brood.origin if brood is not None else b""

    def follow(self, node: Node, runs: Iterable[NodeBlock]) -> None:
        """Let the children of a completing node depend on the attempt that the node itself depends on, if any."""
        among = node.block.brood if node.block is not None else None
        top = _top(among)
        if top is None:
            return
        brood = self._new(node)
        self._release(brood)
        self._take_in(brood, node.instance, runs)

    def _new(self, node: Node) -> EagerAttempt:
        among = node.block.brood if node.block is not None else None
        return EagerAttempt(
            node.attempt, node.key, node.queue.function.name, among if _top(among) is not None else None
        )

    def _refuse_others(self, brood: EagerAttempt, node: Node, new: NewNodes, runs: Iterable[NodeBlock]) -> None:
        homes = {node.instance.key} | brood.instances
        if new.creates is None and any(run.instance.key not in homes for run in runs):
            raise InvalidArgument("an attempt may make nodes in its own instance and in new ones only")

    def _take_in(self, brood: EagerAttempt, own: Instance, runs: Iterable[NodeBlock]) -> None:
        for run in runs:
            self._hold(brood, own.key, run)
            if run.count:
                self._graph.changes.eager_blocks.append(EagerBlockRow(run.first_key, brood.attempt))

    def _hold(self, brood: EagerAttempt, own: int, run: NodeBlock) -> None:
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

    def _release(self, brood: EagerAttempt) -> None:
        brood.eager_state = EagerState.COMMITTED
        self._record(brood)
        brood.root = _top(brood.parent)
        if brood.root is not None:
            brood.root.children.append(brood)
        else:
            brood.runs.clear()
            brood.children.clear()

    def granted(self, node: Node) -> None:
        """Abort an earlier attempt if the node is claimed under another one."""
        brood = self.open.get(node.key)
        if brood is not None and brood.attempt != node.attempt:
            self.abort(node)

    def abort(self, node: Node) -> None:
        """Abort the last attempt of a node. Its children must be cancelled within the same step."""
        brood = self.open.pop(node.key, None)
        if brood is not None:
            self.aborted.append(brood)

    def record_aborted(self, brood: EagerAttempt) -> None:
        """Record that an attempt was aborted, so that it is refused when a worker presents it later."""
        brood.eager_state = EagerState.ABORTED
        self._record(brood)
        node = self._graph.nodes.get(brood.node)
        if node is not None:
            self._graph.trouble(node)
            self._graph.record_trouble(node)

    def disown(self, made: Iterable[CreatedBlock], attempts: Mapping[int, int]) -> None:
        """Record completed attempts as aborted ones for their children, because their nodes run again.

        `attempts` has the recorded attempt of each node that runs again.
        """
        changes = self._graph.changes
        dead: dict[int, EagerAttemptRow] = {}
        for run, root, brood in made:
            if brood is None:
                brood = EagerAttemptRow(attempts[root], root, 0, EagerState.ABORTED)
                changes.eager_blocks.append(EagerBlockRow(run.first_key, brood.attempt))
            dead[brood.attempt] = brood._replace(eager_state=EagerState.ABORTED)
        changes.eager_attempts += dead.values()

    def unfinished(self, brood: EagerAttempt) -> Iterator[Node]:
        """Yield the unfinished nodes that depend on this attempt."""
        nodes, stack = self._graph.nodes, [brood]
        while stack:
            part = stack.pop()
            stack += part.children
            for run in part.runs.values():
                for key in range(run.first_key, run.first_key + run.count):
                    node = nodes.get(key)
                    if node is not None:
                        yield node

    def _record(self, brood: EagerAttempt) -> None:
        within = brood.parent.attempt if brood.parent is not None else 0
        self._graph.changes.eager_attempts.append(EagerAttemptRow(brood.attempt, brood.node, within, brood.eager_state))

    # --- after a restart ------------------------------------------------------------------------------

    def rebuild(self, live: Live) -> None:
        """Load what an earlier broker left, before anything is granted."""
        if not live.eager_attempts:
            return
        known: dict[int, EagerAttempt] = {}
        owns = {row.key: row.instance for row in live.nodes}
        for row in live.eager_attempts:
            known[row.attempt] = self._rebuilt(row, known.get(row.parent))
        runs = {run.first_key: run for each in self._graph.instances.values() for run in each.runs}
        for attempt, made in live.eager_blocks:
            run = runs.get(made.first_key) or NodeBlock(
                made.origin, made.first, made.size, made.first_key, Instance(made.instance, b"")
            )
            self._hold(known[attempt], owns.get(known[attempt].node, 0), run)

    def _rebuilt(self, row: EagerAttemptRow, within: EagerAttempt | None) -> EagerAttempt:
        node = self._graph.nodes.get(row.node)
        brood = EagerAttempt(row.attempt, row.node, node.queue.function.name if node is not None else "", within)
        brood.eager_state = EagerState(row.eager_state)
        if brood.eager_state is EagerState.OPEN and node is not None:
            self.open[row.node] = brood
            node.attempt = max(node.attempt, row.attempt)
        elif brood.eager_state is EagerState.COMMITTED:
            brood.root = _top(within)
            if brood.root is not None:
                brood.root.children.append(brood)
        return brood


def aborted_failure(brood: EagerAttempt) -> Callable[[Node], bytes]:
    """Return a function that makes the failure of nodes that are cancelled because this attempt was aborted."""
    return cancellation(f"the run of {brood.function} that made it was rolled back")


def cancellation(message: str) -> Callable[[Node], bytes]:
    """Return a function that makes the failure of cancelled nodes with this message."""

    @cache
    def packed(function: str) -> bytes:
        return Failure(function, CANCELLATION, message, "", b"", 0).packed()

    return lambda node: packed(node.queue.function.name)


def _top(brood: EagerAttempt | None) -> EagerAttempt | None:
    """Return the running attempt that children depend on; None: they depend on none."""
    passed = []
    while brood is not None and brood.eager_state is EagerState.COMMITTED:
        passed.append(brood)
        brood = brood.root
    for each in passed:
        each.root = brood
    return brood
