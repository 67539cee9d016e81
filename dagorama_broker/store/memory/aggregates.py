"""Reads of many nodes for people from a store in memory: their places, the failed ones, and the edges between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice

from dagorama_broker.model.domain import Failure, State
from dagorama_broker.model.queries import (
    LONGEST_BEGINNING,
    FailurePage,
    NodePlace,
    StructurePage,
    StructureRow,
)
from dagorama_broker.model.rows import OutcomeRow
from dagorama_broker.store.checksums import unpack_sources
from dagorama_broker.store.memory.tables import Tables


class Aggregates:
    """The part of a store in memory that reads many nodes at once."""

    tables: Tables

    def ordinals(self, keys: Collection[int]) -> dict[int, int]:
        wanted, counted, found = set(keys), Counter[int](), dict[int, int]()
        for block in self.tables.blocks:
            its = wanted.intersection(range(block.first_key, block.first_key + block.size)) if wanted else ()
            found |= {key: counted[block.instance] + key - block.first_key + 1 for key in its}
            counted[block.instance] += block.size
        return found

    def ids_at(self, instance: int, ordinals: Collection[int]) -> dict[int, bytes]:
        keys = list(self.tables.blocks.keys_of(instance))
        id_of = self.tables.blocks.id_of
        return {ordinal: id_of(keys[ordinal - 1]) for ordinal in ordinals if 0 < ordinal <= len(keys)}

    def places(self, keys: Collection[int]) -> dict[int, NodePlace]:
        blocks, instances, ordinals = self.tables.blocks, self.tables.instances, self.ordinals(keys)
        return {
            key: NodePlace(blocks.id_of(key), instances[blocks.of(key).instance].row.id, ordinal)
            for key, ordinal in ordinals.items()
            if blocks.of(key).instance in instances
        }

    def places_of(self, ids: Collection[bytes]) -> list[NodePlace]:
        blocks = {id: block for id in ids if (block := self.tables.blocks.with_id(id)) is not None}
        keys = [block.first_key + int.from_bytes(id[12:], "big") - block.first for id, block in blocks.items()]
        return list(self.places(keys).values())

    def failures(self, instance: int, after: int, limit: int) -> FailurePage:
        outcomes = self.tables.outcomes
        caused = Counter(row.root_cause for row in outcomes.values() if row.root_cause not in (0, row.key))
        rows = list(islice(self._failed(instance, after), limit))
        failures = [_unpacked(row) for row in rows]
        return FailurePage(
            [row.key for row in rows],
            [row.ended for row in rows],
            [failure.function for failure in failures],
            [failure.type for failure in failures],
            [failure.message[:LONGEST_BEGINNING] for failure in failures],
            {row.key: caused[row.key] for row in rows if row.key in caused},
            rows[-1].key if len(rows) == limit else 0,
        )

    def _failed(self, instance: int, after: int) -> Iterator[OutcomeRow]:
        for key in self.tables.blocks.keys_of(instance):
            row = self.tables.outcomes.get(key)
            if key > after and row is not None and row.state == State.FAILED and row.root_cause == key:
                yield row

    def structure(self, instance: int, after: int, limit: int) -> StructurePage:
        tables = self.tables
        keys = list(islice((key for key in tables.blocks.keys_of(instance) if key > after), limit))
        rows = [
            StructureRow(key, node.function, tables.blocks.of(key).creator, unpack_sources(node.sources))
            for key, node in ((key, tables.nodes[key]) for key in keys)
        ]
        return StructurePage(rows, keys[-1] if len(keys) == limit else 0)


def _unpacked(row: OutcomeRow) -> Failure:
    return Failure("", "", "", "", b"", 0) if row.failure is None else Failure.unpacked(row.failure)
