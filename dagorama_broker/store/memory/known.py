"""The facts of a store in memory about IDs, names and large values, by which submissions are decided."""

from __future__ import annotations

from heapq import nsmallest

from dagorama_broker.model.looks import look_into
from dagorama_broker.model.rows import NameRow, NodeBlockRow, RemovedRow
from dagorama_broker.store.memory.tables import Tables


class KnownFacts:
    """The part of a `Store` in memory that is `Known`."""

    tables: Tables

    def is_new(self, instance: bytes, origin: bytes) -> bool:
        return origin not in self.tables.blocks.by_origin and not self.has_instance(instance)

    def has_instance(self, id: bytes) -> bool:
        return id in self.tables.instance_keys or self.tables.retention.removed(id) is not None

    def removed(self, id: bytes) -> RemovedRow | None:
        return self.tables.retention.removed(id)

    def last_block(self, origin: bytes, before: int) -> NodeBlockRow | None:
        return self.tables.blocks.last(origin, before)

    def named_instance(self, definition: str, name: str) -> NameRow | None:
        return self.tables.marks.names.get((definition, name))

    def has_large(self, sha256: bytes) -> bool:
        return self.tables.large.has(sha256)

    look = look_into

    def used_ids(self, after: bytes, most: int) -> list[bytes]:
        tables = self.tables
        used = {*tables.instance_keys, *tables.retention.removed_ids, *tables.blocks.by_origin}
        return nsmallest(most, (id for id in used if id > after))
