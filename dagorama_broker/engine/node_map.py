"""Reads the nodes of an instance as columns, for drawings of many nodes.

The rule: a page is read in the thread of the store's view. The loop only overlays what it alone knows: the states of
unfinished nodes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from dagorama_broker.engine.commits import Commits
from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import ENDED, State
from dagorama_broker.model.maps import NO_OUTCOME, BlockColumns, NodeColumns
from dagorama_broker.scheduler import Node, Scheduler

#: Nodes, and sources, that one page has at most; of a node with more, the first sources are read.
PAGE, MOST_SOURCES = 4_000, 100_000
_ENDED = frozenset(map(int, ENDED))


class MapQuery(NamedTuple):
    """Which nodes of an instance to read."""

    instance: int  #: its key
    after: int  #: only nodes after this key
    limit: int
    sources: bool  #: also read their sources


@dataclass(slots=True)
class MapPage:
    """Consecutive nodes of an instance, in the order of their keys, as columns."""

    before: int  #: nodes of the instance that come before these
    blocks: BlockColumns
    keys: list[int]
    columns: NodeColumns  #: with the present states of all nodes
    sources: list[int] | None  #: keys, one node after the other; None: they were not asked for
    held_by: dict[int, str] = field(default_factory=dict)  #: names of workers that hold nodes, by the node's place
    running: dict[int, float] = field(default_factory=dict)  #: when nodes began to run (seconds since 1970), by key
    workers: dict[int, str] = field(default_factory=dict)  #: names of the workers in `columns`, by number


class NodeMaps:
    """Reads maps of instances."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._scheduler = commits.scheduler
        self._view = commits.store.view

    async def pages(self, asked: MapQuery) -> AsyncGenerator[MapPage, None]:
        """Yield the nodes of an instance page by page. Hold the instance meanwhile."""
        before = await self._commits.in_view(self._view.count_up_to, asked.instance, asked.after)
        while asked.limit > 0:
            page = await self._commits.in_view(self._read, asked, before)
            if page is None:
                return
            await self._overlay(asked.instance, page)
            await self._commits.in_view(self._name_workers, page)
            yield page
            count = len(page.keys)
            before += count
            asked = asked._replace(after=page.keys[-1], limit=asked.limit - count)

    # --- in the thread of the view --------------------------------------------------------------------

    def _read(self, asked: MapQuery, before: int) -> MapPage | None:
        """Read the first page of these nodes; None: there are none. Runs in the thread of the view."""
        most = min(PAGE, asked.limit)
        while True:
            blocks = self._view.map_blocks(asked.instance, asked.after, most)
            keys = blocks.keys
            if not keys:
                return None
            columns = self._columns(asked.instance, keys)
            fitting = _fitting(columns.source_counts) if asked.sources else len(keys)
            if fitting == len(keys):
                break
            most = fitting
        found = None
        if asked.sources:
            found = self._view.node_sources(asked.instance, keys[0], keys[-1])[:MOST_SOURCES]
            columns.source_counts[0] = min(columns.source_counts[0], MOST_SOURCES)  # only a page of one node has more
        return MapPage(before, blocks, keys, columns, found)

    def _columns(self, instance: int, keys: list[int]) -> NodeColumns:
        columns = self._view.node_columns(instance, keys[0], keys[-1])
        if len(columns.functions) != len(keys):
            raise StoreError(
                f"table nodes is damaged: the blocks of instance {instance} have {len(keys)} nodes from key {keys[0]}"
                f" to {keys[-1]}, and {len(columns.functions)} are there"
            )
        return columns

    def _name_workers(self, page: MapPage) -> None:
        page.workers = self._view.worker_names(set(page.columns.workers) - {0})

    # --- in the loop ----------------------------------------------------------------------------------

    async def _overlay(self, instance: int, page: MapPage) -> None:
        """Set the present states of unfinished nodes; read nodes again that have ended since the page was read."""
        while late := _overlay_unfinished(self._scheduler, page):
            await self._commits.wait_durable()
            keys = page.keys[late[0] : late[-1] + 1]
            fresh = await self._commits.in_view(self._columns, instance, keys)
            for column, values in zip(page.columns, fresh, strict=True):
                column[late[0] : late[-1] + 1] = values
            page.held_by.clear()
            page.running.clear()


def _overlay_unfinished(scheduler: Scheduler, page: MapPage) -> list[int]:
    """Set the present states of unfinished nodes; return the places of nodes whose end is not in the page."""
    late, states, unfinished = [], page.columns.states, scheduler.nodes
    for place, key in enumerate(page.keys):
        stored, node = states[place], unfinished.get(key)
        if node is None:
            if stored not in _ENDED:
                late.append(place)
            continue
        states[place] = node.state
        if stored != NO_OUTCOME or node.slot is not None or node.failures is not None:  # few of many thousands
            _overlay_node(scheduler, page, place, node)
    return late


def _overlay_node(scheduler: Scheduler, page: MapPage, place: int, node: Node) -> None:
    columns = page.columns
    columns.ended[place] = 0
    if node.state is not State.RESOLVING:
        columns.microseconds[place] = columns.workers[place] = columns.returned[place] = 0
    if node.failures is not None:
        columns.failed_attempts[place] = node.failures.failed_attempts
    if node.slot is not None:
        page.held_by[place] = node.slot.worker.info.name
        if since := scheduler.running_since(node):
            page.running[node.key] = since


def _fitting(source_counts: list[int]) -> int:
    """Return how many nodes have no more sources together than a page may have, at least 1."""
    return max(1, sum(total <= MOST_SOURCES for total in accumulate(source_counts)))
