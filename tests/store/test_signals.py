"""Stores keep signals and waits: over restarts, for retries, and no longer than their instance."""

from __future__ import annotations

from dagorama_broker.model.rows import Changes, DraftRow, InstanceEnd, RemovedRow
from dagorama_broker.model.signals import Mail, SignalRow, WaitEnd, WaitRow
from dagorama_broker.store import Store
from tests.support.records import completed, failed, graph, instance_row, node, restart

WAIT = WaitRow(1, 1, "approval", 60.0, 1700000100.5, 1, b'{"type":"boolean"}', b"signed \0 arguments")
KEPT = SignalRow(3, 1, "approval", "", b"digest", "anna", 1700000002.5, b'{"yes":true}')
KEYED = SignalRow(4, 1, "approval", "key", b"digest", "", 1700000003.5, b"1")


def made(store: Store, *signals: SignalRow) -> None:
    changes = graph(node(1), node(2))
    changes.waits, changes.signals = [WAIT], list(signals)
    store.commit(changes)


def test_a_restart_reads_waits_and_signals_of_unfinished_instances(store: Store) -> None:
    made(store, KEPT, KEYED)
    restart(store)
    live = store.live()
    assert live.mail == Mail([WAIT], [KEPT, KEYED])
    assert live.next_signal == 5
    assert store.waits([1, 2]) == {1: WAIT}


def test_a_later_row_replaces_an_earlier_one_and_a_taken_signal_goes(store: Store) -> None:
    made(store, KEPT, KEYED)
    ended = WAIT._replace(end=WaitEnd.SENT, by="anna", ended=1700000009.5)
    taken = KEYED._replace(value=None)
    store.commit(Changes(outcomes=[completed(1)], waits=[ended], signals=[taken], signals_gone=[KEPT.number]))
    restart(store)
    assert store.live().mail == Mail([ended], [taken])


def test_a_retry_reads_them_of_an_ended_instance(store: Store) -> None:
    made(store, KEPT)
    end = InstanceEnd(1, 1700000010.5, True)
    late = WAIT._replace(end=WaitEnd.TIMED_OUT, ended=1700000009.5)
    store.commit(Changes(outcomes=[failed(1), completed(2)], waits=[late], instance_ends=[end]))
    restart(store)
    assert store.live().mail == Mail([], [])
    (stored,) = store.failed([1]).instances
    assert stored.mail == Mail([late], [KEPT])
    found = store.instance(instance_row().id)
    assert found is not None
    assert found.mail == Mail([late], [KEPT])


def test_they_are_removed_with_their_instance(store: Store) -> None:
    made(store, KEPT, KEYED)
    store.commit(Changes(outcomes=[completed(1), completed(2)], instance_ends=[InstanceEnd(1, 5.5, False)]))
    store.commit(Changes(removed=[RemovedRow(1, instance_row().id, 5.5, False, 60.0)]))
    while store.sweep(10):
        pass
    restart(store)
    assert store.waits([1]) == {}
    assert store.live().mail == Mail([], [])
    other = graph(node(11, instance=2), instance=2, origin=b"other-origin")
    other.waits = [WAIT._replace(key=11, instance=2)]
    store.commit(other)
    assert store.live().mail == Mail(other.waits, [])


def test_waits_of_a_draft_that_is_given_up_are_deleted(store: Store) -> None:
    made(store)
    draft = DraftRow(5, 6)
    store.commit(Changes(nodes=[node(5), node(6)], waits=[WAIT._replace(key=5)], drafts=[draft]))
    store.commit(Changes(given_up=[draft], drafts_over=[5]))
    assert store.waits([1, 5]) == {1: WAIT}
