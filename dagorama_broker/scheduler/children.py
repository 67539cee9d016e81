"""What a running attempt makes: staged until its result is recorded; and the promises that the result names."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama_broker.errors import Malformed, NotKnown
from dagorama_broker.scheduler.limits import Limits
from dagorama_broker.scheduler.making import NewRun, Plan
from dagorama_broker.scheduler.parts import Node
from dagorama_broker.scheduler.transitions import RESOLVING


class Staged:
    """Children of an attempt that still runs: seen by nobody until its result is recorded."""

    __slots__ = ("nodes", "runs", "size", "weight")

    def __init__(self) -> None:
        self.runs: list[NewRun] = []
        self.nodes = 0
        self.size = 0  #: bytes of arguments
        self.weight = 0  #: nodes and references

    def take_in(self, run: NewRun, limits: Limits) -> None:
        """Keep it. Past a bound nothing is kept any more, and `check` will say so."""
        self.nodes += len(run.lanes)
        self.size += sum(map(len, run.arguments))
        self.weight += run.weight
        if self.nodes > limits.nodes_per_attempt or self.size > limits.bytes_per_attempt:
            self.runs.clear()
        else:
            self.runs.append(run)

    def check(self, node: Node, limits: Limits) -> None:
        """Raises TooMuch or Malformed where this cannot become the children of `node`."""
        limits.check_attempt(self.nodes, self.size)
        homes = {node.instance.id, *(run.instance for run in self.runs if run.creates is not None)}
        for run in self.runs:
            limits.check_sources(run.sources)
            if run.instance not in homes:
                raise Malformed("an attempt may make nodes in its own instance and in new ones only")


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
