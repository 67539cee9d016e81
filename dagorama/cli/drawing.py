"""Drawings of a graph in plain text, Mermaid and Graphviz. The rule: a name may contain any character."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dagorama.models.state import State

#: Colors of vertices by their worst state: blue, orange and green tones that color-blind people can tell apart.
_FAILED, _RUNNING, _DONE, _WAITING = "#f4c7ab", "#fde9a9", "#cfe8d5", "#eeeeee"
#: Sources that a line of a tree names.
LISTED_SOURCES = 5


class Vertex(NamedTuple):
    """A function with its nodes, or one node."""

    name: str
    short: str  #: for references to it
    label: str
    states: Mapping[State, int]

    @property
    def nodes(self) -> int:
        return sum(self.states.values())

    @property
    def color(self) -> str:
        if self.states.keys() & {State.FAILED, State.CANCELLED}:
            return _FAILED
        if State.CLAIMED in self.states:
            return _RUNNING
        return _DONE if self.states.keys() <= {State.COMPLETED} else _WAITING

    @property
    def counts(self) -> str:
        """The number of nodes, and their states."""
        states = ", ".join(
            state.name.lower() if count == self.nodes else f"{count:,} {state.name.lower()}"
            for state, count in sorted(self.states.items(), reverse=True)
        )
        return f"{self.nodes:,} nodes, {states}" if self.nodes != 1 else states


class Edge(NamedTuple):
    """Values and creations that lead from one vertex, by its index, to another."""

    source: int
    target: int
    values: int  #: times that a node of the target takes the value of a node of the source
    created: int  #: nodes of the target that nodes of the source have created


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph to draw."""

    title: str
    vertices: Sequence[Vertex]
    edges: Sequence[Edge]


# --- a tree ------------------------------------------------------------------------------------------------


def tree(graph: Graph) -> str:
    """Draw vertices below their creators; a vertex that was drawn before is a reference to it."""
    created = {edge.target for edge in graph.edges if edge.created and edge.source != edge.target}
    roots = [index for index in range(len(graph.vertices)) if index not in created]
    lines, drawn = [graph.title], set[int]()
    # A cycle of creators that no other vertex leads to begins with its first vertex.
    for root in [*roots, *range(len(graph.vertices))]:
        if root not in drawn:
            lines += _branch(graph, root, drawn)
    return "\n".join(lines)


def _branch(graph: Graph, root: int, drawn: set[int]) -> Iterator[str]:
    """Yield the lines of a vertex and of all below it, without recursion: a chain may be long."""
    stack: list[tuple[int, str, str, tuple[int, ...]]] = [(root, "", "", ())]
    while stack:
        index, first, rest, path = stack.pop()
        if index in drawn:
            mark = "↻ recursion, see above" if index in path else "see above"
            yield f"{first}{_printable(graph.vertices[index].label)}  ({mark})"
            continue
        drawn.add(index)
        yield f"{first}{_described(graph, index)}"
        below = [edge.target for edge in graph.edges if edge.created and edge.source == index != edge.target]
        forks = [("├── ", "│   ")] * (len(below) - 1) + [("└── ", "    ")]
        for target, (fork, line) in reversed(list(zip(below, forks, strict=False))):
            stack.append((target, rest + fork, rest + line, (*path, index)))


def _described(graph: Graph, index: int) -> str:
    vertex = graph.vertices[index]
    into = [edge for edge in graph.edges if edge.target == index]
    parts = [_printable(vertex.label), vertex.counts]
    parts += [f"↻ creates itself x {edge.created:,}" for edge in into if edge.source == index and edge.created]
    values = [edge for edge in into if edge.values]
    for edge in values[:LISTED_SOURCES]:
        times = f" x {edge.values:,}" if edge.values > 1 else ""
        parts.append(f"← {_printable(graph.vertices[edge.source].short)}{times}")
    if len(values) > LISTED_SOURCES:
        parts.append(f"and {len(values) - LISTED_SOURCES:,} more")
    return "  ".join(parts)


def _printable(text: str) -> str:
    """Return a text in one line, with escapes for characters that a terminal would not show."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


# --- Mermaid -----------------------------------------------------------------------------------------------


def mermaid(graph: Graph) -> str:
    """Return a flowchart for Mermaid."""
    lines = ["flowchart TD"]
    for index, vertex in enumerate(graph.vertices):
        lines.append(f'    n{index}["{_entities(vertex.label)}<br/>{_entities(vertex.counts)}"]')
        lines.append(f"    style n{index} fill:{vertex.color},color:#000000")
    for edge in graph.edges:
        if edge.values:
            lines.append(f"    n{edge.source} -->{_times(edge.values, '|{}|')} n{edge.target}")
        if edge.created:
            lines.append(f"    n{edge.source} -.->{_times(edge.created, '|{}|')} n{edge.target}")
    return "\n".join(lines)


def _entities(text: str) -> str:
    """Return a text for a quoted label of Mermaid, in which all but a few characters are numbers of characters."""
    return "".join(char if char.isalnum() or char in " _.,:/-" else f"#{ord(char)};" for char in text)


# --- Graphviz ----------------------------------------------------------------------------------------------


def dot(graph: Graph) -> str:
    """Return a digraph for Graphviz."""
    lines = [f'digraph "{_quoted(graph.title)}" {{', "    node [shape=box, style=filled];"]
    for index, vertex in enumerate(graph.vertices):
        label = f"{_quoted(vertex.label)}\\n{_quoted(vertex.counts)}"
        lines.append(f'    n{index} [label="{label}", fillcolor="{vertex.color}"];')
    for edge in graph.edges:
        if edge.values:
            label = _times(edge.values, ' [label="{}"]')
            lines.append(f"    n{edge.source} -> n{edge.target}{label};")
        if edge.created:
            label = _times(edge.created, ', label="{}"')
            lines.append(f"    n{edge.source} -> n{edge.target} [style=dashed{label}];")
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    """Return a text for a quoted string of Graphviz."""
    return _printable(text).replace("\\", "\\\\").replace('"', '\\"')


def _times(count: int, form: str) -> str:
    return form.format(f"{count:,}") if count > 1 else ""
