"""The graph of an instance with one vertex for each function: how many values and creations lead from one to another.

The rule: nodes are read and counted in the thread of the store's view, a page at a time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dagorama_broker.engine.commits import Commits
from dagorama_broker.model.queries import StructureRow

#: Nodes that one page reads, and nodes of an instance whose edges are counted.
PAGE, LOOKED_AT = 2_000, 200_000


@dataclass(slots=True)
class Shape:
    """Edges between functions, by their IDs."""

    values: Counter[tuple[int, int]] = field(default_factory=Counter)  #: from the source to the node that takes it
    created: Counter[tuple[int, int]] = field(default_factory=Counter)  #: from the creator to the created node
    nodes: int = 0  #: that were counted
    _functions: dict[int, int] = field(default_factory=dict)  #: of these nodes

    def add(self, rows: list[StructureRow]) -> None:
        """Count the edges that lead to these nodes, whose sources and creators were added before."""
        functions = self._functions
        functions.update((row.key, row.function) for row in rows)
        for _, function, creator, sources in rows:
            if creator in functions:
                self.created[functions[creator], function] += 1
            for source in sources:
                if source in functions:  # not of another instance
                    self.values[functions[source], function] += 1
        self.nodes += len(rows)


async def read_shape(commits: Commits, instance: int) -> Shape:
    """Return the edges between the functions of an instance, by its key."""
    shape, view = Shape(), commits.store.view

    def add_page(after: int) -> int:
        page = view.structure(instance, after, PAGE)
        shape.add(page.rows)
        return page.more

    after = await commits.in_view(add_page, 0)
    while after and shape.nodes < LOOKED_AT:
        after = await commits.in_view(add_page, after)
    return shape
