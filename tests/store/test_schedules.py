"""What every store does with schedules: they are replaced by name, kept over restarts, and deleted."""

from __future__ import annotations

import pytest

from dagorama_broker.model.domain import Function, RetryPolicy, WireProtocol
from dagorama_broker.model.rows import Changes
from dagorama_broker.model.schedules import ScheduleRow, packed_function, unpacked_function
from dagorama_broker.store import Store
from tests.support.records import restart

FUNCTION = Function("work:Report.entrypoint", "hash", "reports", retry=RetryPolicy(3, 1.5), timeout=60.0, key_id="0f")
DAILY = ScheduleRow(
    "daily", "work:Report", packed_function(FUNCTION), b"arguments", "0 7 * * *", "Europe/Berlin", 0.0, 0.0,
    "skip", "last", False, 1_700_000_000.25,
)  # fmt: skip
OFTEN = DAILY._replace(name="often", cron="", zone="UTC", every=90.0, start=1_700_000_000.0, paused=True)


def test_schedules_are_kept_over_a_restart(store: Store) -> None:
    store.commit(Changes(schedules=[OFTEN, DAILY]))
    assert store.live().schedules == [DAILY, OFTEN]
    restart(store)
    assert store.live().schedules == [DAILY, OFTEN]
    assert [row.paused for row in store.live().schedules] == [False, True]


def test_a_later_row_replaces_an_earlier_one(store: Store) -> None:
    store.commit(Changes(schedules=[DAILY]))
    fired = DAILY._replace(fired=1_700_003_600.5, instance=bytes(range(16)), waiting=1_700_003_600.5)
    store.commit(Changes(schedules=[fired]))
    restart(store)
    assert store.live().schedules == [fired]


def test_a_deleted_schedule_is_gone_and_may_come_again(store: Store) -> None:
    store.commit(Changes(schedules=[DAILY, OFTEN]))
    store.commit(Changes(schedules_gone=["daily", "unknown"]))
    restart(store)
    assert store.live().schedules == [OFTEN]
    store.commit(Changes(schedules_gone=["often"], schedules=[OFTEN, DAILY]))
    restart(store)
    assert store.live().schedules == [DAILY, OFTEN]


@pytest.mark.parametrize("function", [FUNCTION, Function("f", "", "q", protocol=WireProtocol.V1, is_async=True)])
def test_a_schedule_keeps_all_of_its_function(function: Function) -> None:
    assert unpacked_function(packed_function(function)) == function
