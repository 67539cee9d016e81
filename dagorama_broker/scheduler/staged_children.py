"""Stages the children of running attempts until their results come, and finds the promises that results name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized

from dagorama_broker.errors import InvalidArgument, NotFound, ResourceExhausted
from dagorama_broker.scheduler.limits import Limits
from dagorama_broker.scheduler.objects import Node
from dagorama_broker.scheduler.requests import NewNodes
from dagorama_broker.scheduler.submission import SubmissionPlan
from dagorama_broker.scheduler.transitions import RESOLVING

#: Bytes that each takes in addition to its content while it is staged.
RUN, NODE, REFERENCE, ID, DELAY = 600, 150, 40, 60, 600


def staged_cost(nodes: int, references: int, ids: int, content: int) -> int:
    """Return the bytes that a block of staged children takes in memory."""
    return RUN + NODE * nodes + REFERENCE * references + ID * ids + content


def cost_of(block: NewNodes) -> int:
    """Return the bytes that a block takes in memory while it is staged."""
    references = _entries(block.sources) + _entries(block.tolerant)
    ids = len(block.foreign) + len(block.large) + 2 * len(block.cache_keys or ())
    content = sum(map(len, block.arguments)) + DELAY * len(block.delays or ())
    return staged_cost(block.count, references, ids, content)


def _entries(columns: Iterable[Sized] | None) -> int:
    return sum(map(len, columns)) if columns is not None else 0


class StagedChildren:
    """Children of a running attempt, which are invisible until its result is recorded."""

    __slots__ = ("blocks", "cost", "nodes", "size", "too_much", "weight")

    def __init__(self) -> None:
        self.blocks: list[NewNodes] = []
        self.nodes = 0
        self.size = 0  #: bytes of arguments
        self.weight = 0  #: nodes and references
        self.cost = 0  #: bytes that all of it takes in memory
        self.too_much = ""  #: why nothing is staged, if it takes too much memory

    def check(self, node: Node, limits: Limits) -> None:
        """Raise ResourceExhausted or InvalidArgument if these cannot become the children of `node`."""
        if self.too_much:
            raise ResourceExhausted(self.too_much)
        limits.check_attempt(self.nodes, self.size)
        homes = {node.instance.id, *(block.instance for block in self.blocks if block.creates is not None)}
        for block in self.blocks:
            limits.check_sources(block.sources)
            if block.instance not in homes:
                raise InvalidArgument("an attempt may make nodes in its own instance and in new ones only")


class Stage(dict[int, StagedChildren]):
    """The staged children of all running attempts, by attempt, with limits for each and for all together."""

    def __init__(self) -> None:
        super().__init__()
        self.cost = 0  #: bytes that all of it takes in memory

    def has_room(self, attempt: int, cost: int, limits: Limits) -> bool:
        """Return whether the attempt may stage `cost` bytes more; if not, drop all its staged children."""
        staged = self.setdefault(attempt, StagedChildren())
        staged.too_much = staged.too_much or limits.too_much_staged(staged.cost + cost, self.cost + cost)
        if staged.too_much:
            self._clear(staged)
        return not staged.too_much

    def take_in(self, attempt: int, block: NewNodes, limits: Limits) -> None:
        """Stage a block. Past a limit nothing is staged, and `Staged.check` will refuse the result."""
        staged, cost = self.setdefault(attempt, StagedChildren()), cost_of(block)
        staged.nodes += block.count
        staged.size += sum(map(len, block.arguments))
        if staged.nodes > limits.nodes_per_attempt or staged.size > limits.bytes_per_attempt:
            self._clear(staged)
        elif self.has_room(attempt, cost, limits):
            staged.blocks.append(block)
            staged.weight += block.weight
            staged.cost += cost
            self.cost += cost

    def _clear(self, staged: StagedChildren) -> None:
        staged.blocks.clear()
        self.cost -= staged.cost
        staged.cost = 0

    def take_out(self, attempt: int) -> StagedChildren | None:
        """Remove the staged children of an attempt that has ended."""
        staged = self.pop(attempt, None)
        if staged is not None:
            self.cost -= staged.cost
        return staged


def own_origin(node: Node, blocks: Sequence[NewNodes]) -> bytes:
    """Return the origin of children staged in the instance of `node`; empty: there are none."""
    return next((block.origin for block in blocks if block.instance == node.instance.id), b"")


def promised(plan: SubmissionPlan, own: bytes, refs: Sequence[int], foreign: Sequence[bytes]) -> tuple[Node, ...]:
    """Return the nodes that a result names: children, whose origin is `own`, by counter, others by ID.

    Raises InvalidArgument or NotFound.
    """
    found = []
    for ref in refs:
        other = plan.at(own, ref) or plan.named(own, ref) if ref >= 0 else plan.find(foreign[-1 - ref])
        if other is None:
            name = f"its child {ref}" if ref >= 0 else f"node {foreign[-1 - ref].hex()}"
            raise NotFound(f"the result names {name}, which is not known to this broker")
        found.append(other)
    return tuple(found)


def refuse_cycle(plan: SubmissionPlan, node: Node, blocks: Sequence[NewNodes], named: Sequence[Node]) -> None:
    """Raise InvalidArgument if a node that the result names waits for `node`, directly or through others."""
    if all(map(plan.has, named)) and not any(block.foreign for block in blocks):
        return
    is_waited_for = bool(node.dependents)
    seen, stack = set(named), list(named)
    while stack:
        other = stack.pop()
        if other is node:
            raise InvalidArgument("its result names a node that waits for it: neither could ever end")
        if not (is_waited_for or plan.has(other)):
            continue
        for next in (*other.sources, *(other.refs if other.state is RESOLVING else ())):
            if next not in seen:
                seen.add(next)
                stack.append(next)
