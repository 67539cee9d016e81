"""Stores keep the IDs, labels, priorities and fair keys that users give to instances."""

from __future__ import annotations

import pytest

from dagorama_broker.errors import StoreError
from dagorama_broker.model.queries import InstanceMarks, InstanceQuery
from dagorama_broker.model.rows import Changes, InstanceEnd, LabelRow, NameRow, RemovedRow, TurnRow
from dagorama_broker.store import Store
from tests.support.records import completed, graph, instance_row, node, restart

LAST = (1 << 63) - 1


def marked(store: Store, key: int, name: str = "", *, priority: int = 0, **labels: str) -> None:
    """Commit an instance of one node with an ID and labels."""
    changes = graph(node(key, instance=key), instance=key, origin=b"origin-%05d" % key)
    changes.instances = [instance_row(key)._replace(priority=priority)]
    changes.names = [NameRow(key, "work:Plain", name, b"digest of %d" % key)] if name else []
    changes.labels = [LabelRow(key, label, value) for label, value in labels.items()]
    store.commit(changes)


def listed(store: Store, **asked: object) -> list[int]:
    found = store.view.list_instances(InstanceQuery(LAST, 100, **asked))  # type: ignore[arg-type]  # its fields
    assert not found.more
    return [stored.row.key for stored in found.instances]


def end(store: Store, *keys: int) -> None:
    ends = [InstanceEnd(key, 5.5, False) for key in keys]
    store.commit(Changes(outcomes=[completed(key) for key in keys], instance_ends=ends))


def remove(store: Store, *keys: int) -> None:
    store.commit(Changes(removed=[RemovedRow(key, instance_row(key).id, 5.5, False, 60.0) for key in keys]))


def test_marks_are_there_after_a_restart(store: Store) -> None:
    marked(store, 1, "order-1", priority=-5, tenant="7", kind="order")
    marked(store, 2)
    marked(store, 3, tenant="8")
    restart(store)
    assert store.marks([1, 2, 3, 9]) == {
        1: InstanceMarks("order-1", b"digest of 1", (("kind", "order"), ("tenant", "7"))),
        3: InstanceMarks(labels=(("tenant", "8"),)),
    }
    assert [row.priority for row in store.live().instances] == [-5, 0, 0]
    assert store.named_instance("work:Plain", "order-1") == NameRow(1, "work:Plain", "order-1", b"digest of 1")
    assert store.named_instance("work:Other", "order-1") is None
    assert store.named_instance("work:Plain", "order-2") is None


def test_turns_are_there_after_a_restart_until_their_instances_are_removed(store: Store) -> None:
    rows = [TurnRow(1, "tenant-7", 1), TurnRow(2, "", 9), TurnRow(3, "tenant-8", 2)]
    for row in rows:
        marked(store, row.instance, f"order-{row.instance}" if row.fair == "tenant-7" else "")
        store.commit(Changes(turns=[row]))
    marked(store, 4)
    restart(store)
    assert store.live().turns == {row.instance: row for row in rows}
    end(store, 3)
    assert store.live().turns.keys() == {1, 2}
    assert store.marks([1, 2, 3, 4]) == {
        1: InstanceMarks("order-1", b"digest of 1", fair="tenant-7"),
        3: InstanceMarks(fair="tenant-8"),
    }
    remove(store, 3)
    restart(store)
    assert store.marks([3]) == {}
    assert store.live().turns.keys() == {1, 2}


def test_instances_are_found_by_id_and_by_all_labels_that_are_asked_for(store: Store) -> None:
    marked(store, 1, "order-1", tenant="7", kind="order")
    marked(store, 2, "order-2", tenant="7")
    marked(store, 3, tenant="8", kind="order")
    end(store, 1)
    assert listed(store, name="order-2") == [2]
    assert listed(store, name="order") == []
    assert listed(store, labels=(("tenant", "7"),)) == [2, 1]
    assert listed(store, labels=(("kind", "order"), ("tenant", "7"))) == [1]
    assert listed(store, labels=(("tenant", "7"), ("other", "7"))) == []
    assert listed(store, labels=(("tenant", "7"),), unfinished=True) == [2]
    assert listed(store, labels=(("tenant", "7"),), definition="work:None") == []
    assert listed(store, name="order-1", labels=(("tenant", "8"),)) == []


def test_an_id_belongs_to_one_instance_of_a_definition_until_that_is_removed(store: Store) -> None:
    marked(store, 1, "order-1", tenant="7")
    with pytest.raises(StoreError):
        marked(store, 2, "order-1")
    restart(store)
    end(store, 1)
    remove(store, 1)
    assert store.named_instance("work:Plain", "order-1") is None
    assert store.marks([1]) == {}
    assert listed(store, labels=(("tenant", "7"),)) == []
    marked(store, 3, "order-1")
    assert listed(store, name="order-1") == [3]
    while store.sweep(100):
        pass
    assert listed(store, name="order-1") == [3]
