"""What every store shows page by page."""

import pytest

from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import State
from dagorama_broker.model.queries import InstanceQuery, StoredNode
from dagorama_broker.model.rows import (
    Changes,
    FunctionRow,
    InstanceEnd,
    NodeRow,
    ProgressRow,
    ReboundRow,
    WorkerNameRow,
)
from dagorama_broker.store import Store
from dagorama_broker.store.sql import search
from tests.support.records import RICH, begun, completed, failed, graph, instance_row, keys, node, restart, run_row

LAST = (1 << 63) - 1
#: When the nodes of `graph` were created.
CREATED = run_row(0, 3, 1).created


def instances(store: Store) -> None:
    """Six of them: 1 and 4 have failed, 2 and 4 are unfinished."""
    store.commit(graph(node(1)))
    for key in range(2, 7):
        store.commit(graph(node(key, instance=key), instance=key, origin=b"origin-%05d" % key))
    ends = [InstanceEnd(1, 5.5, True), InstanceEnd(4, None, True), *(InstanceEnd(key, 6.5, False) for key in (3, 5, 6))]
    store.commit(Changes(instance_ends=ends, outcomes=[failed(1)]))


def listed(store: Store, before: int = LAST, limit: int = 100, **asked: object) -> tuple[list[int], int]:
    found = store.view.list_instances(InstanceQuery(before, limit, **asked))  # type: ignore[arg-type]  # its fields
    return [stored.row.key for stored in found.instances], found.more


def test_the_latest_instances_come_first_and_each_page_goes_on_after_the_one_before(store: Store) -> None:
    instances(store)
    restart(store)
    assert listed(store) == ([6, 5, 4, 3, 2, 1], 0)
    assert listed(store, limit=4) == ([6, 5, 4, 3], 3)
    assert listed(store, before=3, limit=4) == ([2, 1], 0)
    assert listed(store, before=3, limit=2) == ([2, 1], 0)


def test_only_those_that_are_asked_for_are_listed(store: Store) -> None:
    instances(store)
    assert listed(store, unfinished=True) == ([4, 2], 0)
    assert listed(store, failed=True) == ([4, 1], 0)
    assert listed(store, unfinished=True, failed=True) == ([4, 2, 1], 0)
    assert listed(store, unfinished=True, failed=True, limit=1) == ([4], 4)
    assert listed(store, definition="work:Plain", limit=2) == ([6, 5], 5)
    assert listed(store, definition="work:None") == ([], 0)


def test_an_instance_is_listed_with_how_it_ended(store: Store) -> None:
    instances(store)
    (last,) = store.view.list_instances(InstanceQuery(2, 5)).instances
    assert (last.row, last.ended, last.failed) == (instance_row(1), 5.5, True)


def test_a_page_looks_at_so_many_and_says_where_to_go_on(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagorama_broker.store import open_store

    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('store')}/broker.sqlite3")
    begun(store)
    instances(store)
    monkeypatch.setattr(search, "LOOKED_AT", 2)
    assert listed(store, definition="work:None") == ([], 5)
    assert listed(store, before=5, definition="work:None") == ([], 3)
    assert listed(store, before=3, definition="work:None") == ([], 0)
    store.close()


def test_nodes_of_an_instance_come_in_the_order_in_which_they_were_made(store: Store) -> None:
    store.commit(graph(node(1), node(2), node(3)))
    store.commit(graph(node(4, instance=2), instance=2, origin=b"other-origin"))
    store.commit(Changes(blocks=[run_row(3, 2, 5)], nodes=[node(5), node(6)]))
    restart(store)
    assert store.view.node_keys(1, 0, 100) == [1, 2, 3, 5, 6]
    assert store.view.node_keys(1, 2, 2) == [3, 5]
    assert [store.view.node_keys(1, after, 9) for after in (3, 4, 5, 6)] == [[5, 6], [5, 6], [6], []]
    assert store.view.node_keys(9, 0, 100) == []
    assert [store.view.size_of(key) for key in (1, 2, 9)] == [5, 1, 0]


def test_those_that_ended_badly_are_paged_too(store: Store) -> None:
    store.commit(graph(*(node(key) for key in range(1, 10))))
    store.commit(Changes(outcomes=[failed(2), completed(3), failed(4), failed(7, root_cause=4)]))
    assert [end.key for end in store.failed_ends(1, 2)] == [4, 7]
    assert [end.key for end in store.failed_ends(1, 0, 2)] == [2, 4]
    assert store.failed_ends(1, 7) == []


def test_a_node_says_who_created_it_and_when(store: Store) -> None:
    store.commit(graph(node(1)))
    children = run_row(1, 2, 2)._replace(creator=1, created=1700000007_000001)
    store.commit(Changes(blocks=[children], nodes=[node(2), node(3)]))
    described = store.view.described([1, 2, 3])
    assert [described[key].creator for key in (1, 2, 3)] == [0, 1, 1]
    assert [described[key].created for key in (1, 3)] == [CREATED, children.created]


def test_names_of_workers_stay_when_the_workers_have_left(store: Store) -> None:
    names = [WorkerNameRow(1, "host:1"), WorkerNameRow(2, "host:2")]
    store.commit(Changes(worker_names=names, workers_joined=[(b"w" * 16, "host:1")]))
    store.commit(Changes(workers_left=[b"w" * 16]))
    assert store.view.worker_names([2, 1, 3]) == {1: "host:1", 2: "host:2"}
    assert store.live().next_worker == 3


def test_the_latest_names_of_workers_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dagorama_broker.store.sql.writer", "dagorama_broker.store.memory.tables"):
        monkeypatch.setattr(f"{module}.REMEMBERED", 2)
    for number in range(1, 5):
        store.commit(Changes(worker_names=[WorkerNameRow(number, f"host:{number}")]))
    assert store.view.worker_names(range(1, 5)) == {3: "host:3", 4: "host:4"}
    assert store.live().next_worker == 5


def test_a_node_is_described_by_all_but_its_payloads(store: Store) -> None:
    store.commit(graph(node(1), NodeRow(2, 1, 1, keys(-1), b"arguments"), node(3)))
    progress = ProgressRow(2, 1, 2, 3, 0.0, b"why", 0.5, 7)
    store.commit(Changes(functions=[FunctionRow(2, RICH)], progress=[progress], rebound=[ReboundRow(2, 2)]))
    store.commit(Changes(outcomes=[failed(1), completed(3, 2, state=State.RESOLVING)]))
    assert store.described([1, 2, 3]) == {
        1: StoredNode(1, 1, b"", failed(1)._replace(failure=None), None, created=CREATED),
        2: StoredNode(2, 2, keys(-1), None, progress, created=CREATED),
        3: StoredNode(3, 1, b"", completed(3, 2, state=State.RESOLVING)._replace(value=None), None, created=CREATED),
    }
    with pytest.raises(StoreError, match="node 9"):
        store.described([1, 9])


# --- IDs between two IDs --------------------------------------------------------------------------------

LOWEST, HIGHEST = bytes(16), b"\xff" * 16


def test_ids_of_instances_between_two_are_found_in_their_order(store: Store) -> None:
    instances(store)
    restart(store)
    ids = sorted(instance_row(key).id for key in range(1, 7))
    assert store.view.instances_between(LOWEST, HIGHEST, 10) == ids
    assert store.view.instances_between(ids[1], ids[3], 10) == ids[1:4]
    assert store.view.instances_between(ids[1], ids[3], 2) == ids[1:3]
    assert store.view.instances_between(HIGHEST, HIGHEST, 10) == []


def test_ids_of_nodes_between_two_are_those_of_one_instance(store: Store) -> None:
    store.commit(graph(*(node(key) for key in range(1, 5))))
    store.commit(graph(node(10, instance=2), instance=2, origin=b"origin-00002"))
    later = Changes(blocks=[run_row(4, 2, 20, 1), run_row(7, 1, 30, 1, b"a later one!")])
    later.nodes = [node(20), node(21), node(30)]
    store.commit(later)
    restart(store)
    ids = [store.ids([key])[key] for key in (1, 2, 3, 4, 20, 21, 30)]
    assert store.view.nodes_between(1, LOWEST, HIGHEST, 10) == sorted(ids)
    assert store.view.nodes_between(1, ids[2], ids[4], 10) == ids[2:5]
    assert store.view.nodes_between(1, ids[2], ids[4], 2) == ids[2:4]
    assert store.view.nodes_between(1, ids[6][:12] + bytes(4), ids[6][:12] + b"\xff" * 4, 10) == [ids[6]]
    assert store.view.nodes_between(2, LOWEST, HIGHEST, 10) == [b"origin-00002" + bytes(4)]
    assert store.view.nodes_between(3, LOWEST, HIGHEST, 10) == []
