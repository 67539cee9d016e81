"""Paused keys in every store: they are there after a restart until they are over."""

from __future__ import annotations

from dagorama_broker.model.key_pauses import KeyPauseRow
from dagorama_broker.model.rows import Changes
from dagorama_broker.store import Store
from tests.support.records import restart

ROWS = [
    KeyPauseRow("few", "", 0, 1_700_000_030.5, 30.0, 7),
    KeyPauseRow("few", "", 1, 1_700_000_010.0, 10.0, 8),
    KeyPauseRow("few", "tenant-7", 0, 1_700_000_020.0, 20.0, 9),
]


def test_pauses_are_there_after_a_restart(store: Store) -> None:
    store.commit(Changes(key_pauses=ROWS[::-1]))
    restart(store)
    assert store.live().key_pauses == ROWS


def test_a_later_row_replaces_an_earlier_one_also_in_one_commit(store: Store) -> None:
    store.commit(Changes(key_pauses=[ROWS[0]]))
    longer = ROWS[0]._replace(until=1_700_000_050, seconds=50, node=11)
    store.commit(Changes(key_pauses=[ROWS[0]._replace(node=10), longer]))
    assert store.live().key_pauses == [longer]
    restart(store)
    assert store.live().key_pauses == [longer]


def test_a_pause_that_is_over_is_gone_and_may_come_again(store: Store) -> None:
    store.commit(Changes(key_pauses=ROWS))
    store.commit(Changes(key_pauses_over=[ROWS[0].paused, ROWS[2].paused]))
    assert store.live().key_pauses == [ROWS[1]]
    store.commit(Changes(key_pauses_over=[ROWS[1].paused], key_pauses=[ROWS[1]]))
    restart(store)
    assert store.live().key_pauses == [ROWS[1]]
