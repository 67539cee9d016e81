"""Makes the children of eager functions while their parents run, and cancels them if the parent's attempt fails.

There is one record for each attempt that makes such children, with their blocks of nodes, and none for a node. When the
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
from dagorama_broker.scheduler.instances import EagerAttempt, Instance, NodeBlock
from dagorama_broker.scheduler.limits import Limits
from dagorama_broker.scheduler.objects import Node
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
        eager_attempt = self.open.get(node.key) or self._new(node)
        size, cost = sum(map(len, new.arguments)), cost_of(new)
        limits.check_attempt(eager_attempt.nodes + new.count, eager_attempt.size + size)
        if too_much := limits.too_much_staged(eager_attempt.cost + cost, 0):
            raise ResourceExhausted(too_much)
        limits.check_sources(new.sources)
        plan = SubmissionPlan(self._graph, [new], known)
        self._refuse_others(eager_attempt, node, new, plan.blocks)
        plan.make(node.key)
        eager_attempt.size += size
        eager_attempt.cost += cost
        if node.key not in self.open:
            self.open[node.key] = eager_attempt
            self._record(eager_attempt)
        self._take_in(eager_attempt, node.instance, plan.blocks)

    def has_made(self, key: int, new: NewNodes) -> bool:
        """Return whether the running attempt of this node has made these children already."""
        eager_attempt = self.open.get(key)
        return eager_attempt is not None and (new.origin, new.first, new.count) in eager_attempt.blocks

    def origin_of(self, key: int) -> bytes:
        """Return the origin of the running attempt's children in the node's own instance; empty: none."""
        eager_attempt = self.open.get(key)
        return eager_attempt.origin if eager_attempt is not None else b""

    def follow(self, node: Node, blocks: Iterable[NodeBlock]) -> None:
        """Let the children of a completing node depend on the attempt that the node itself depends on, if any."""
        among = node.block.eager_attempt if node.block is not None else None
        top = _top(among)
        if top is None:
            return
        eager_attempt = self._new(node)
        self._release(eager_attempt)
        self._take_in(eager_attempt, node.instance, blocks)

    def _new(self, node: Node) -> EagerAttempt:
        among = node.block.eager_attempt if node.block is not None else None
        return EagerAttempt(
            node.attempt, node.key, node.queue.function.name, among if _top(among) is not None else None
        )

    def _refuse_others(
        self, eager_attempt: EagerAttempt, node: Node, new: NewNodes, blocks: Iterable[NodeBlock]
    ) -> None:
        homes = {node.instance.key} | eager_attempt.instances
        if new.creates is None and any(block.instance.key not in homes for block in blocks):
            raise InvalidArgument("an attempt may make nodes in its own instance and in new ones only")

    def _take_in(self, eager_attempt: EagerAttempt, own: Instance, blocks: Iterable[NodeBlock]) -> None:
        for block in blocks:
            self._hold(eager_attempt, own.key, block)
            if block.count:
                self._graph.changes.eager_blocks.append(EagerBlockRow(block.first_key, eager_attempt.attempt))

    def _hold(self, eager_attempt: EagerAttempt, own: int, block: NodeBlock) -> None:
        block.eager_attempt = eager_attempt
        eager_attempt.blocks[block.origin, block.first, block.count] = block
        eager_attempt.instances.add(block.instance.key)
        eager_attempt.nodes += block.count
        if block.instance.key == own:
            eager_attempt.origin = block.origin

    # --- ending ---------------------------------------------------------------------------------------

    def release(self, node: Node) -> None:
        """Keep the children of an attempt that has completed."""
        eager_attempt = self.open.pop(node.key, None)
        if eager_attempt is not None:
            self._release(eager_attempt)

    def _release(self, eager_attempt: EagerAttempt) -> None:
        eager_attempt.eager_state = EagerState.COMMITTED
        self._record(eager_attempt)
        eager_attempt.root = _top(eager_attempt.parent)
        if eager_attempt.root is not None:
            eager_attempt.root.children.append(eager_attempt)
        else:
            eager_attempt.blocks.clear()
            eager_attempt.children.clear()

    def granted(self, node: Node) -> None:
        """Abort an earlier attempt if the node is claimed under another one."""
        eager_attempt = self.open.get(node.key)
        if eager_attempt is not None and eager_attempt.attempt != node.attempt:
            self.abort(node)

    def abort(self, node: Node) -> None:
        """Abort the last attempt of a node. Its children must be cancelled within the same step."""
        eager_attempt = self.open.pop(node.key, None)
        if eager_attempt is not None:
            self.aborted.append(eager_attempt)

    def record_aborted(self, eager_attempt: EagerAttempt) -> None:
        """Record that an attempt was aborted, so that it is refused when a worker presents it later."""
        eager_attempt.eager_state = EagerState.ABORTED
        self._record(eager_attempt)
        node = self._graph.nodes.get(eager_attempt.node)
        if node is not None:
            self._graph.trouble(node)
            self._graph.record_trouble(node)

    def disown(self, made: Iterable[CreatedBlock], attempts: Mapping[int, int]) -> None:
        """Record completed attempts as aborted ones for their children, because their nodes run again.

        `attempts` has the recorded attempt of each node that runs again.
        """
        changes = self._graph.changes
        dead: dict[int, EagerAttemptRow] = {}
        for block, root, eager_attempt in made:
            if eager_attempt is None:
                eager_attempt = EagerAttemptRow(attempts[root], root, 0, EagerState.ABORTED)
                changes.eager_blocks.append(EagerBlockRow(block.first_key, eager_attempt.attempt))
            dead[eager_attempt.attempt] = eager_attempt._replace(eager_state=EagerState.ABORTED)
        changes.eager_attempts += dead.values()

    def unfinished(self, eager_attempt: EagerAttempt) -> Iterator[Node]:
        """Yield the unfinished nodes that depend on this attempt."""
        nodes, stack = self._graph.nodes, [eager_attempt]
        while stack:
            part = stack.pop()
            stack += part.children
            for block in part.blocks.values():
                for key in range(block.first_key, block.first_key + block.count):
                    node = nodes.get(key)
                    if node is not None:
                        yield node

    def _record(self, eager_attempt: EagerAttempt) -> None:
        within = eager_attempt.parent.attempt if eager_attempt.parent is not None else 0
        self._graph.changes.eager_attempts.append(
            EagerAttemptRow(eager_attempt.attempt, eager_attempt.node, within, eager_attempt.eager_state)
        )

    # --- after a restart ------------------------------------------------------------------------------

    def rebuild(self, live: Live) -> None:
        """Load what an earlier broker left, before anything is granted."""
        if not live.eager_attempts:
            return
        known: dict[int, EagerAttempt] = {}
        owns = {row.key: row.instance for row in live.nodes}
        for row in live.eager_attempts:
            known[row.attempt] = self._rebuilt(row, known.get(row.parent))
        blocks = {block.first_key: block for each in self._graph.instances.values() for block in each.blocks}
        for attempt, made in live.eager_blocks:
            block = blocks.get(made.first_key) or NodeBlock(
                made.origin, made.first, made.size, made.first_key, Instance(made.instance, b"")
            )
            self._hold(known[attempt], owns.get(known[attempt].node, 0), block)

    def _rebuilt(self, row: EagerAttemptRow, within: EagerAttempt | None) -> EagerAttempt:
        node = self._graph.nodes.get(row.node)
        eager_attempt = EagerAttempt(
            row.attempt, row.node, node.queue.function.name if node is not None else "", within
        )
        eager_attempt.eager_state = EagerState(row.eager_state)
        if eager_attempt.eager_state is EagerState.OPEN and node is not None:
            self.open[row.node] = eager_attempt
            node.attempt = max(node.attempt, row.attempt)
        elif eager_attempt.eager_state is EagerState.COMMITTED:
            eager_attempt.root = _top(within)
            if eager_attempt.root is not None:
                eager_attempt.root.children.append(eager_attempt)
        return eager_attempt


def aborted_failure(eager_attempt: EagerAttempt) -> Callable[[Node], bytes]:
    """Return a function that makes the failure of nodes that are cancelled because this attempt was aborted."""
    return cancellation(f"the run of {eager_attempt.function} that made it was rolled back")


def cancellation(message: str) -> Callable[[Node], bytes]:
    """Return a function that makes the failure of cancelled nodes with this message."""

    @cache
    def packed(function: str) -> bytes:
        return Failure(function, CANCELLATION, message, "", b"", 0).packed()

    return lambda node: packed(node.queue.function.name)


def _top(eager_attempt: EagerAttempt | None) -> EagerAttempt | None:
    """Return the running attempt that children depend on; None: they depend on none."""
    passed = []
    while eager_attempt is not None and eager_attempt.eager_state is EagerState.COMMITTED:
        passed.append(eager_attempt)
        eager_attempt = eager_attempt.root
    for each in passed:
        each.root = eager_attempt
    return eager_attempt
