"""Nodes that workers get before the commit that makes them durable, and nodes that must wait for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dagorama_broker.engine.ahead import Ahead
from dagorama_broker.engine.payloads import Payloads
from dagorama_broker.model.domain import Function, Rate, SharedLimit
from tests.support.driver import SchedulerDriver, function

LIMITED = [
    function("rated", rate=Rate(2, 10.0)),
    function("by key", rate=Rate(2, 10.0), rate_by_key=True),
    function("shared", limit=SharedLimit("limit", Rate(2, 10.0), 0)),
]


@pytest.fixture
def driver() -> SchedulerDriver:
    return SchedulerDriver()


async def nothing(keys: Sequence[int]) -> dict[int, bytes]:
    """Read envelopes from a store that has none."""
    return {}


def are_early(driver: SchedulerDriver, *functions: Function) -> list[bool]:
    """Submit a node of each function in one commit; return which are granted before it."""
    scheduler, payloads = driver.scheduler, Payloads(1 << 20, nothing, nothing)
    driver.worker(slots=len(functions) + 1)
    with driver.at_once():
        for number, each in enumerate(functions):
            driver.spawn(f"n{number}", of=each)
        scheduler.tick(driver.now)
        changes, effects = scheduler.drain()
        payloads.take_in(changes, scheduler.nodes, lambda key: False)
        early, late = Ahead(scheduler, payloads).split(changes, effects)
    nodes = [granted.node.key for granted in early]
    assert len(early) + len(late) == len(functions)
    return [driver.key(f"n{number}") in nodes for number in range(len(functions))]


def test_a_new_node_is_granted_before_its_commit(driver: SchedulerDriver) -> None:
    assert are_early(driver, function()) == [True]


@pytest.mark.parametrize("limited", LIMITED, ids=lambda each: each.name)
def test_a_node_of_a_new_function_with_a_rate_waits_because_a_crash_would_forget_its_start(
    driver: SchedulerDriver, limited: Function
) -> None:
    assert are_early(driver, limited, function()) == [False, True]


@pytest.mark.parametrize("limited", LIMITED, ids=lambda each: each.name)
def test_a_node_of_a_stored_function_with_a_rate_does_not_wait(driver: SchedulerDriver, limited: Function) -> None:
    driver.spawn("earlier", of=limited)
    assert are_early(driver, limited) == [True]
