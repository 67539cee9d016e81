"""What every store does with the rows of calls that are made in portions: they count when the call is decided."""

from __future__ import annotations

from dagorama_broker.model.delays import DelayRow, NodeDelay
from dagorama_broker.model.rows import Changes, DraftRow, FunctionRow, KeyRow, ReboundRow
from dagorama_broker.store import Store
from tests.support.records import ORIGIN, PLAIN, instance_row, node, node_id, restart, run_row

FUNCTIONS = [FunctionRow(1, PLAIN)]


def begun(store: Store, size: int = 4) -> None:
    """Rows of the first two nodes of a draft are written."""
    store.commit(Changes(functions=FUNCTIONS, drafts=[DraftRow(1, size)], nodes=[node(1), node(2)]))


def decided(store: Store) -> None:
    store.commit(Changes(nodes=[node(3), node(4)], keys=[KeyRow(4, "k")], delays=[DelayRow(3, 1.5, 0.0)]))
    store.commit(Changes(instances=[instance_row()], blocks=[run_row(0, 4, 1)], drafts_over=[1]))


def test_a_draft_that_is_decided_is_live_as_a_whole(store: Store) -> None:
    begun(store)
    decided(store)
    restart(store)
    live = store.live()
    assert [row.key for row in live.nodes] == [1, 2, 3, 4]
    assert (live.keys, live.delays) == ({4: "k"}, {3: NodeDelay(1.5)})
    assert store.arguments([2, 3]) == {2: b"arguments of 2", 3: b"arguments of 3"}
    assert live.next_node == 5


def test_nodes_of_a_draft_are_found_by_nothing_before_it_is_decided(store: Store) -> None:
    begun(store)
    assert store.find([node_id(0), node_id(1)]) == {}
    assert store.last_block(ORIGIN, 4) is None
    assert store.is_new(instance_row().id, ORIGIN)


def test_a_start_deletes_what_a_crash_has_left_of_a_draft_and_its_keys_stay_used(store: Store) -> None:
    begun(store)
    store.commit(Changes(nodes=[node(5)], instances=[instance_row()], blocks=[run_row(0, 1, 5)]))
    restart(store)
    live = store.live()
    assert [row.key for row in live.nodes] == [5]
    assert live.next_node == 6
    store.commit(Changes(drafts=[DraftRow(6, 7)], nodes=[node(6)]))
    restart(store)
    assert store.live().next_node == 8


def test_what_is_given_up_is_gone_and_may_be_followed_by_another_draft(store: Store) -> None:
    begun(store)
    store.commit(Changes(keys=[KeyRow(2, "k")], delays=[DelayRow(2, 0.0, 7.0)], rebound=[ReboundRow(2, 1)]))
    store.commit(Changes(given_up=[DraftRow(1, 2)], drafts_over=[1]))
    restart(store)
    assert store.live().next_node == 3
    store.commit(Changes(drafts=[DraftRow(5, 6)], nodes=[node(5), node(6)]))
    store.commit(Changes(instances=[instance_row()], blocks=[run_row(0, 2, 5)], drafts_over=[5]))
    assert [row.key for row in store.live().nodes] == [5, 6]
    store.commit(Changes(delays=[DelayRow(2, 1.0, 2.0)]))  # nothing is left of the first one
    assert store.live().keys == {}
