"""What a running attempt makes: staged until its result is recorded; and the promises that the result names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized

from dagorama_broker.errors import Malformed, NotKnown, TooMuch
from dagorama_broker.scheduler.limits import Limits
from dagorama_broker.scheduler.objects import Node
from dagorama_broker.scheduler.requests import NewRun
from dagorama_broker.scheduler.submission import Plan
from dagorama_broker.scheduler.transitions import RESOLVING

#: Bytes that each takes beside its content, as long as it is staged.
RUN, NODE, REFERENCE, ID = 600, 150, 40, 60


def staged_cost(nodes: int, references: int, ids: int, content: int) -> int:
    """Bytes that a run of staged children takes in memory."""
    return RUN + NODE * nodes + REFERENCE * references + ID * ids + content


def cost_of(run: NewRun) -> int:
    """Bytes that a run takes in memory while it is staged."""
    references = _entries(run.sources) + _entries(run.tolerant)
    ids = len(run.foreign) + len(run.large)
    return staged_cost(run.count, references, ids, sum(map(len, run.arguments)))


def _entries(columns: Iterable[Sized] | None) -> int:
    return sum(map(len, columns)) if columns is not None else 0


class Staged:
    """Children of an attempt that still runs: seen by nobody until its result is recorded."""

    __slots__ = ("cost", "nodes", "runs", "size", "too_much", "weight")

    def __init__(self) -> None:
        self.runs: list[NewRun] = []
        self.nodes = 0
        self.size = 0  #: bytes of arguments
        self.weight = 0  #: nodes and references
        self.cost = 0  #: bytes that all of it takes in memory
        self.too_much = ""  #: why nothing is kept any more, if it takes too much memory

    def check(self, node: Node, limits: Limits) -> None:
        """Raises TooMuch or Malformed where this cannot become the children of `node`."""
        if self.too_much:
            raise TooMuch(self.too_much)
        limits.check_attempt(self.nodes, self.size)
        homes = {node.instance.id, *(run.instance for run in self.runs if run.creates is not None)}
        for run in self.runs:
            limits.check_sources(run.sources)
            if run.instance not in homes:
                raise Malformed("an attempt may make nodes in its own instance and in new ones only")


class Stage(dict[int, Staged]):
    """What all running attempts have staged, by attempt, within bounds for each and for all together."""

    def __init__(self) -> None:
        super().__init__()
        self.cost = 0  #: bytes that all of it takes in memory

    def has_room(self, attempt: int, cost: int, limits: Limits) -> bool:
        """Whether the attempt may stage as many bytes more. Past a bound, nothing of it is kept any more."""
        staged = self.setdefault(attempt, Staged())
        staged.too_much = staged.too_much or limits.too_much_staged(staged.cost + cost, self.cost + cost)
        if staged.too_much:
            self._clear(staged)
        return not staged.too_much

    def take_in(self, attempt: int, run: NewRun, limits: Limits) -> None:
        """Keep a run. Past a bound nothing is kept any more, and `Staged.check` will say so."""
        staged, cost = self.setdefault(attempt, Staged()), cost_of(run)
        staged.nodes += run.count
        staged.size += sum(map(len, run.arguments))
        if staged.nodes > limits.nodes_per_attempt or staged.size > limits.bytes_per_attempt:
            self._clear(staged)
        elif self.has_room(attempt, cost, limits):
            staged.runs.append(run)
            staged.weight += run.weight
            staged.cost += cost
            self.cost += cost

    def _clear(self, staged: Staged) -> None:
        staged.runs.clear()
        self.cost -= staged.cost
        staged.cost = 0

    def take_out(self, attempt: int) -> Staged | None:
        """The attempt has come to its end."""
        staged = self.pop(attempt, None)
        if staged is not None:
            self.cost -= staged.cost
        return staged


def own_origin(node: Node, runs: Sequence[NewRun]) -> bytes:
    """Of the nodes that an attempt of `node` has staged in the node's own instance; empty: it has none."""
    return next((run.origin for run in runs if run.instance == node.instance.id), b"")


def promised(plan: Plan, own: bytes, refs: Sequence[int], foreign: Sequence[bytes]) -> tuple[Node, ...]:
    """The nodes that a result names: children, whose origin is `own`, by their counters, others by their ids.

    Raises Malformed or NotKnown.
    """
    found = []
    for ref in refs:
        other = plan.at(own, ref) or plan.named(own, ref) if ref >= 0 else plan.find(foreign[-1 - ref])
        if other is None:
            name = f"its child {ref}" if ref >= 0 else f"node {foreign[-1 - ref].hex()}"
            raise NotKnown(f"the result names {name}, which is not known to this broker")
        found.append(other)
    return tuple(found)


def refuse_circle(plan: Plan, node: Node, runs: Sequence[NewRun], named: Sequence[Node]) -> None:
    """Raises Malformed where a node that the result names, or what that waits for in turn, waits for `node`."""
    if all(map(plan.has, named)) and not any(run.foreign for run in runs):
        return
    is_waited_for = bool(node.dependents)
    seen, stack = set(named), list(named)
    while stack:
        other = stack.pop()
        if other is node:
            raise Malformed("its result names a node that waits for it: neither could ever end")
        if not (is_waited_for or plan.has(other)):
            continue
        for next in (*other.sources, *(other.refs if other.state is RESOLVING else ())):
            if next not in seen:
                seen.add(next)
                stack.append(next)
