"""Cached values in every store: written, replaced, deleted, and read in the order of their completion."""

from __future__ import annotations

from dagorama_broker.model.rows import CachedRow, Changes
from dagorama_broker.store.protocol import Store


def cached(key: int, node: int = 1, completed: float = 1.5) -> CachedRow:
    node_id = node.to_bytes(16, "big")
    return CachedRow(bytes([key]) * 32, "work:Work", 1, 2, b"i" * 16, node, node_id, completed, 0.0, 0, b"proof")


def test_a_later_row_of_a_key_replaces_an_earlier_one(store: Store) -> None:
    store.commit(Changes(cached=[cached(1, completed=3.0), cached(2, completed=2.0)]))
    assert store.live().cached == [cached(2, completed=2.0), cached(1, completed=3.0)]
    store.commit(Changes(cached=[cached(1, node=7), cached(1, node=8)]))
    assert store.live().cached == [cached(1, node=8), cached(2, completed=2.0)]


def test_rows_are_deleted_before_others_are_written(store: Store) -> None:
    store.commit(Changes(cached=[cached(1), cached(2)]))
    store.commit(Changes(uncached=[cached(1).key, cached(2).key], cached=[cached(2, node=5)]))
    assert store.live().cached == [cached(2, node=5)]
