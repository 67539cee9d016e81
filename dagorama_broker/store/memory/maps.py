"""Reads for pages from a store in memory: nodes of an instance as columns, and actions."""

from __future__ import annotations

from collections.abc import Iterator

from dagorama_broker.model.actions import ListedActions, StoredAction
from dagorama_broker.model.domain import State
from dagorama_broker.model.maps import LAST_KEY, NO_OUTCOME, BlockColumns, NodeColumns
from dagorama_broker.model.rows import NodeBlockRow
from dagorama_broker.store.checksums import unpack_sources
from dagorama_broker.store.memory.tables import Tables


class Maps:
    """The part of a store in memory that pages read."""

    tables: Tables

    def list_actions(self, before: int, limit: int) -> ListedActions:
        actions = self.tables.actions
        numbers = sorted((number for number in actions if number < before), reverse=True)
        found = [StoredAction(number, actions[number]) for number in numbers[:limit]]
        return ListedActions(found, found[-1].number if len(numbers) > len(found) else 0, len(actions))

    def map_blocks(self, instance: int, after: int, limit: int) -> BlockColumns:
        columns = BlockColumns([], [], [], [])
        for block, keys in self._blocks(instance, after + 1, LAST_KEY):
            if limit <= 0:
                break
            size = min(len(keys), limit)
            limit -= size
            for column, value in zip(columns, (keys.start, size, block.creator, block.created), strict=True):
                column.append(value)
        return columns

    def _blocks(self, instance: int, first: int, last: int) -> Iterator[tuple[NodeBlockRow, range]]:
        """Yield the blocks of an instance that have nodes in this range, both ends included, and their keys in it."""
        for block in self.tables.blocks.after(first - 1):
            if block.first_key > last:
                return
            keys = range(max(first, block.first_key), min(last + 1, block.first_key + block.size))
            if block.instance == instance and keys:
                yield block, keys

    def _keys(self, instance: int, first: int, last: int) -> Iterator[int]:
        return (key for _, keys in self._blocks(instance, first, last) for key in keys)

    def count_up_to(self, instance: int, key: int) -> int:
        return sum(len(keys) for _, keys in self._blocks(instance, 0, key))

    def node_columns(self, instance: int, first: int, last: int) -> NodeColumns:
        columns = NodeColumns([], bytearray(), [], [], [], [], [], [])
        for key in self._keys(instance, first, last):
            for column, value in zip(columns, self._columns_of(key), strict=True):
                column.append(value)
        return columns

    def _columns_of(self, key: int) -> tuple[int, ...]:
        node, outcome, progress = self.tables.nodes[key], self.tables.outcomes.get(key), self.tables.progress.get(key)
        ended = returned = 0.0
        if outcome is not None and outcome.state == State.RESOLVING:
            returned = outcome.ended
        elif outcome is not None:
            ended, returned = outcome.ended, outcome.returned
        return (
            node.function,
            NO_OUTCOME if outcome is None else outcome.state,
            round(ended * 1_000_000),
            0 if outcome is None else outcome.microseconds,
            0 if outcome is None else outcome.worker,
            0 if progress is None else progress.failed_attempts,
            round(returned * 1_000_000),
            len(unpack_sources(node.sources)),
        )

    def node_sources(self, instance: int, first: int, last: int) -> list[int]:
        nodes = (self.tables.nodes[key] for key in self._keys(instance, first, last))
        return [source for node in nodes for source in unpack_sources(node.sources)]
