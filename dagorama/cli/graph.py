"""The graph of an instance, for `dagorama graph`: as a tree, or in the languages of Mermaid and Graphviz.

A vertex is a function with its nodes, or a node. An edge is a value that a node takes from another (a full line), or
says which node created it (a dashed line).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from dagorama.api.contract import is_hook
from dagorama.cli.base import INSTANCE, Answer, broker_command, node_name, whole_ids
from dagorama.cli.drawing import Edge, Graph, Vertex, dot, mermaid, tree
from dagorama.client.display.tables import uuid_text
from dagorama.errors import RequestRejected
from dagorama.models.state import State

if TYPE_CHECKING:
    from dagorama.api import broker_pb2
    from dagorama.client.connection import Connection

FORMATS: dict[str, Callable[[Graph], str]] = {"tree": tree, "mermaid": mermaid, "dot": dot}
#: Nodes of an instance that can be drawn one by one, and sources of a node that the broker lists.
MOST_NODES, LISTED_SOURCES = 500, 100


@click.command()
@INSTANCE
@click.option(
    "--by", type=click.Choice(["function", "node"]), default="function", show_default=True,
    help=f"Draw one vertex for each function, or for each node of a graph of up to {MOST_NODES} nodes.",
)  # fmt: skip
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    default="tree",
    show_default=True,
    help="Format of the drawing.",
)
@broker_command
def graph(broker: Connection, instance: str, by: str, form: str) -> Answer:
    """Draw the functions of an instance: which ones create nodes of which, and which take values of which."""
    id = whole_ids(broker, instance)[0]
    drawn, note = _of_functions(broker.get_shape(id)) if by == "function" else _of_nodes(broker, id)
    return Answer(FORMATS[form](drawn), {"instance": uuid_text(id), "by": by, **_data(drawn)}, note)


def _of_functions(shape: broker_pb2.Shape) -> tuple[Graph, str]:
    shorts = [each.function.rpartition(":")[2] for each in shape.functions]
    vertices = [
        Vertex(each.function, short, short, _states(each.nodes))
        for each, short in zip(shape.functions, shorts, strict=True)
    ]
    edges = [Edge(edge.source, edge.target, edge.values, edge.created) for edge in shape.edges]
    notes = []
    if (shown := sum(vertex.nodes for vertex in vertices)) < shape.nodes:
        notes.append(f"{shape.nodes - shown:,} nodes of other functions are not shown.")
    if shape.counted < shape.nodes:
        notes.append(f"Only the edges of the first {shape.counted:,} of {shape.nodes:,} nodes were counted.")
    return Graph(shape.definition, vertices, edges), "\n".join(notes)


def _states(nodes: Iterable[int]) -> dict[State, int]:
    return {State(number): count for number, count in enumerate(nodes) if count}


def _of_nodes(broker: Connection, id: bytes) -> tuple[Graph, str]:
    info = broker.get_instance(id)
    if info.nodes > MOST_NODES:
        raise RequestRejected(f"the instance has {info.nodes:,} nodes; up to {MOST_NODES} are drawn, use --by function")
    nodes = broker.list_nodes(id)
    place = {node.node: index for index, node in enumerate(nodes)}
    names = [node_name(id, node.ordinal, node.node) for node in nodes]
    vertices = [
        Vertex(name, name, f"{name} {_label(id, node)}", {State(node.state): 1})
        for name, node in zip(names, nodes, strict=True)
    ]
    edges = dict[tuple[int, int], Edge]()
    for index, node in enumerate(nodes):
        if node.creator in place:
            edges[place[node.creator], index] = Edge(place[node.creator], index, 0, 1)
        for source in node.sources:
            if source in place:
                created = (place[source], index) in edges
                edges[place[source], index] = Edge(place[source], index, 1, int(created))
    is_cut = any(len(node.sources) == LISTED_SOURCES for node in nodes)
    note = f"At most {LISTED_SOURCES} sources of a node are drawn." if is_cut else ""
    return Graph(info.definition, vertices, list(edges.values())), note


def _label(instance: bytes, node: broker_pb2.NodeInfo) -> str:
    function = node.function.name.rpartition(":")[2]
    return f"{function} (failure hook)" if is_hook(instance, node.node) else function


def _data(drawn: Graph) -> dict[str, object]:
    return {
        "definition": drawn.title,
        "vertices": [
            {
                "name": vertex.name, "nodes": vertex.nodes,
                "states": {state.name: count for state, count in vertex.states.items()},
            }
            for vertex in drawn.vertices
        ],
        "edges": [
            {
                "source": drawn.vertices[edge.source].name, "target": drawn.vertices[edge.target].name,
                "values": edge.values, "created": edge.created,
            }
            for edge in drawn.edges
        ],
    }  # fmt: skip
