"""Places of nodes: an ordinal and an ID lead to each other, however the blocks of several instances interleave."""

from __future__ import annotations

from random import Random

import pytest

from dagorama_broker.model.queries import NodePlace
from dagorama_broker.model.rows import Changes, FunctionRow
from dagorama_broker.store import Store
from dagorama_broker.store.sql import places
from tests.support.records import PLAIN, instance_row, node, node_id, restart, run_row

#: Instance and size of each block, in the order of creation.
BLOCKS = [(Random(seed).randint(1, 3), Random(seed + 100).randint(1, 4)) for seed in range(40)]


@pytest.fixture
def ids(store: Store) -> dict[int, list[bytes]]:
    """The IDs of the nodes of each instance, in the order of creation; they are in the store."""
    changes, found, first_key = Changes(functions=[FunctionRow(1, PLAIN)]), dict[int, list[bytes]](), 1
    changes.instances = [instance_row(key) for key in (1, 2, 3)]
    for number, (instance, size) in enumerate(BLOCKS):
        origin = b"origin-%05d" % number
        changes.blocks.append(run_row(0, size, first_key, instance, origin))
        changes.nodes += [node(key, instance=instance) for key in range(first_key, first_key + size)]
        found.setdefault(instance, []).extend(node_id(counter, origin) for counter in range(size))
        first_key += size
    store.commit(changes)
    restart(store)
    return found


@pytest.mark.parametrize("together", [1, 2, 4_096])
def test_the_nodes_at_ordinals_are_found_in_the_order_of_creation(
    store: Store, ids: dict[int, list[bytes]], together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_BLOCKS", together)
    for instance, its in ids.items():
        every = range(1, len(its) + 1)
        assert store.view.ids_at(instance, every) == dict(zip(every, its, strict=True))
        for ordinal in every:
            assert store.view.ids_at(instance, [ordinal]) == {ordinal: its[ordinal - 1]}
        assert store.view.ids_at(instance, [len(its) + 1, 1]) == {1: its[0]}
    assert store.view.ids_at(99, [1]) == {}


def test_ordinals_and_places_lead_back(store: Store, ids: dict[int, list[bytes]]) -> None:
    keys = {
        id: key
        for instance, its in ids.items()
        for id, key in zip(its, store.view.node_keys(instance, 0, 999), strict=True)
    }
    expected = {
        keys[id]: NodePlace(id, instance_row(instance).id, ordinal)
        for instance, its in ids.items()
        for ordinal, id in enumerate(its, 1)
    }
    assert store.view.places(list(expected)) == expected
    assert store.view.ordinals(list(expected)) == {key: place.ordinal for key, place in expected.items()}
    some = list(expected)[::7]
    assert store.view.ordinals(some) == {key: expected[key].ordinal for key in some}
    found = store.view.places_of([*(expected[key].id for key in some), bytes(16)])
    assert sorted(found) == sorted(expected[key] for key in some)


def test_the_structure_is_read_page_by_page(store: Store, ids: dict[int, list[bytes]]) -> None:
    for instance, its in ids.items():
        whole = store.view.structure(instance, 0, 999)
        assert ([row.key for row in whole.rows], whole.more) == (store.view.node_keys(instance, 0, 999), 0)
        assert len(whole.rows) == len(its)
        rows, after = [], 0
        while True:
            page = store.view.structure(instance, after, 3)
            rows += page.rows
            if not page.more:
                break
            after = page.more
        assert rows == whole.rows
