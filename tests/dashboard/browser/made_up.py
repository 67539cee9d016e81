"""Instances that no broker knows, in the form in which the dashboard tells them to the graph module."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from dagorama.models.state import State

#: Seconds since 1970 at which all made-up instances were created.
CREATED = 1_790_000_000.0


@dataclass
class MadeUpNode:
    function: str
    state: State = State.COMPLETED
    sources: tuple[int, ...] = ()  #: ordinals
    creator: int = 0  #: an ordinal; 0: a client
    created: int = 0  #: milliseconds since the instance was created
    ended: int = 0  #: milliseconds since the instance was created
    run: int = 0  #: microseconds
    worker: str = ""
    attempts: int = 0  #: failed ones
    since: int = 0  #: milliseconds since the instance was created, if it runs


@dataclass
class MadeUpInstance:
    """An instance whose nodes tests can change; `answer` is what the dashboard would say about it."""

    nodes: list[MadeUpNode] = field(default_factory=list)
    definition: str = "flow:Flow"
    ended: float | None = None
    total: int = 0  #: nodes of the instance; 0: all are told

    def add(self, function: str, count: int = 1, **properties: Any) -> range:
        """Add nodes of one function, and return their ordinals."""
        first = len(self.nodes) + 1
        self.nodes += [MadeUpNode(function, **properties) for _ in range(count)]
        return range(first, first + count)

    def set(self, ordinal: int, state: State) -> dict[str, object]:
        """Change the state of a node, and return the event that tells it."""
        self.nodes[ordinal - 1].state = state
        return self.change([ordinal])

    def change(self, ordinals: list[int]) -> dict[str, object]:
        states = bytes(self.nodes[ordinal - 1].state for ordinal in ordinals if ordinal <= len(self.nodes))
        return {"o": ordinals, "s": base64.b64encode(states).decode(), "nodes": len(self.nodes)}

    def functions(self) -> list[str]:
        return list(dict.fromkeys(node.function for node in self.nodes))

    def progress(self) -> dict[str, object]:
        return {
            "definition": self.definition,
            "created": CREATED,
            "ended": self.ended,
            "failed": any(node.state is State.FAILED for node in self.nodes),
            "nodes": self.total or len(self.nodes),
            "states": [state.name for state in State],
            "functions": [self._function(name) for name in self.functions()],
        }

    def _function(self, name: str) -> dict[str, object]:
        nodes = [node for node in self.nodes if node.function == name]
        states, times = Counter(node.state for node in nodes), [node.run / 1e6 for node in nodes if node.run]
        return {
            "name": name,
            "label": name.partition(":")[2],
            "nodes": [states[state] for state in State],
            "timed": len(times),
            "seconds": sum(times),
            "longest": max(times, default=0),
        }

    def shape(self) -> dict[str, object]:
        names = self.functions()
        edges = Counter[tuple[int, int, str]]()
        for node in self.nodes:
            to = names.index(node.function)
            edges.update((names.index(self.nodes[source - 1].function), to, "value") for source in node.sources)
            if node.creator:
                edges[names.index(self.nodes[node.creator - 1].function), to, "created"] += 1
        told = [{"from": a, "to": b, "count": count, "kind": kind} for (a, b, kind), count in edges.items()]
        return {**self.progress(), "edges": told, "counted": len(self.nodes)}

    def map(self, after: int) -> dict[str, object]:
        nodes = self.nodes[after:]
        names = self.functions()
        workers = sorted({node.worker for node in self.nodes} - {""})
        ordinals = range(after + 1, len(self.nodes) + 1)
        return {
            "created": CREATED,
            "nodes": self.total or len(self.nodes),
            "after": after,
            "count": len(nodes),
            "functions": [name.partition(":")[2] for name in names],
            "function_names": names,
            "workers": workers,
            "state": base64.b64encode(bytes(node.state for node in nodes)).decode(),
            "function": [names.index(node.function) for node in nodes],
            "worker": [1 + workers.index(node.worker) if node.worker else 0 for node in nodes],
            "attempts": [node.attempts for node in nodes],
            "ended": [node.ended for node in nodes],
            "run": [node.run for node in nodes],
            "blocks": self._blocks(after),
            "running": [
                [at, each.since] for at, each in zip(ordinals, nodes, strict=True) if each.state is State.CLAIMED
            ],
            "sources": {
                "count": [len(node.sources) for node in nodes],
                "ordinal": [source for node in nodes for source in node.sources],
            },
        }

    def _blocks(self, after: int) -> list[list[int]]:
        blocks: list[list[int]] = []
        for at, node in enumerate(self.nodes[after:], after + 1):
            if blocks and blocks[-1][2:] == [node.creator, node.created]:
                blocks[-1][1] += 1
            else:
                blocks.append([at, 1, node.creator, node.created])
        return blocks
