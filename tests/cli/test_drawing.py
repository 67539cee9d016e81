"""Drawings of a graph: names may contain any character, and cycles end."""

from __future__ import annotations

import re

from dagorama.cli.drawing import LISTED_SOURCES, Edge, Graph, Vertex, dot, mermaid, tree
from dagorama.models.state import State

AWKWARD = 'a"b\\c\n<d>|{e}[f];#g&h\x1b`é'


def vertex(name: str, **states: int) -> Vertex:
    return Vertex(
        name, name, name, {State[state.upper()]: count for state, count in (states or {"completed": 1}).items()}
    )


def graph(*names: str, edges: list[Edge]) -> Graph:
    return Graph("m:D", [vertex(name) for name in names], edges)


def test_a_tree_has_creators_above_what_they_create_and_names_the_sources() -> None:
    drawn = Graph(
        "m:D",
        [vertex("entry", completed=1), vertex("page", completed=998, failed=2), vertex("total", waiting=1)],
        [Edge(0, 1, 0, 1000), Edge(0, 2, 0, 1), Edge(1, 2, 1000, 0)],
    )
    assert tree(drawn).splitlines() == [
        "m:D",
        "entry  completed",
        "├── page  1,000 nodes, 2 failed, 998 completed",
        "└── total  waiting  ← page x 1,000",
    ]


def test_recursion_is_a_loop_and_a_second_creator_a_reference() -> None:
    direct = graph(
        "entry", "deeper", "add", edges=[Edge(0, 1, 0, 1), Edge(1, 1, 0, 9), Edge(1, 2, 9, 9), Edge(0, 2, 0, 1)]
    )
    assert tree(direct).splitlines()[1:] == [
        "entry  completed",
        "├── deeper  completed  ↻ creates itself x 9",
        "│   └── add  completed  ← deeper x 9",
        "└── add  (see above)",
    ]
    round_trip = graph("one", "two", edges=[Edge(0, 1, 0, 1), Edge(1, 0, 0, 1)])
    assert tree(round_trip).splitlines()[1:] == [
        "one  completed",
        "└── two  completed",
        "    └── one  (↻ recursion, see above)",
    ]


def test_a_long_chain_is_drawn_without_recursion_and_many_sources_are_counted() -> None:
    names = [f"f{number}" for number in range(3_000)]
    chain = graph(*names, edges=[Edge(number, number + 1, 0, 1) for number in range(2_999)])
    assert len(tree(chain).splitlines()) == 3_001
    fan = graph(*names[:10], edges=[Edge(number, 9, 1, 0) for number in range(9)])
    assert f"and {9 - LISTED_SOURCES} more" in tree(fan)


def test_mermaid_gets_no_character_that_it_would_read_as_its_own() -> None:
    text = mermaid(graph(AWKWARD, "other", edges=[Edge(0, 1, 2, 1), Edge(1, 1, 0, 3)]))
    lines = text.splitlines()
    assert lines[0] == "flowchart TD"
    (label,) = [line for line in lines if line.startswith("    n0[")]
    inner = label.removeprefix('    n0["').removesuffix('"]').replace("<br/>", "")
    assert not set(inner) & set('"<>{}[]|\\`&\n\x1b')
    decoded = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), inner)
    assert decoded == f"{AWKWARD}completed"
    assert "    n0 -->|2| n1" in lines
    assert "    n0 -.-> n1" in lines
    assert "    n1 -.->|3| n1" in lines


def test_dot_gets_quoted_strings_that_end_where_they_should() -> None:
    text = dot(graph(AWKWARD, "other", edges=[Edge(0, 1, 2, 1)]))
    (label,) = re.findall(r'n0 \[label="((?:[^"\\]|\\.)*)"', text)
    assert label == 'a\\"b\\\\c\\\\n<d>|{e}[f];#g&h\\\\u001b`é\\ncompleted'
    assert '    n0 -> n1 [label="2"];' in text.splitlines()
    assert "    n0 -> n1 [style=dashed];" in text.splitlines()
    assert text.startswith('digraph "m:D" {')
    assert text.endswith("}")


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in tree(graph(AWKWARD, edges=[]))
    assert "\\u001b" in tree(graph(AWKWARD, edges=[]))
