"""`dagorama queues limits`: what is used of rates and shared limits, and what waits for them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from dagorama import DAGDefinition, Limit, Rate, RetryLater, batch, dagorama, execute_worker, resolve, state
from dagorama.__main__ import main
from dagorama.models.state import State
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker

API = Limit("api", rate=Rate(500, per=3_600), concurrency=20)
TENANT = "t" * 7


class Limited(DAGDefinition):
    @dagorama(rate=Rate(2, per=3_600), rate_key="tenant")
    def entrypoint(self, tenant: str) -> str:
        return self.shares(tenant)

    @dagorama(limit=API)
    def shares(self, tenant: str) -> str:
        return tenant


@pytest.fixture
def broker() -> Iterator[LaunchedBroker]:
    with launch_broker(port=0, store="memory://") as broker:
        yield broker


def said(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


class Asks(DAGDefinition):
    @dagorama(queue_name="asks", max_concurrency=1, concurrency_key="tenant")
    def entrypoint(self, tenant: str, seconds: float) -> str:
        if seconds:
            raise RetryLater(seconds, pause_key=True)
        return tenant


@pytest.mark.usefixtures("broker")
def test_a_pause_that_a_node_has_asked_for_is_ended_with_the_option_keys() -> None:
    Asks()(TENANT, 1e9)
    held = Asks()(TENANT, 0)
    execute_worker(infinite_loop=False)
    said("queues", "resume", "asks")
    execute_worker(infinite_loop=False)
    assert state(*held) == State.QUEUED
    text = said("queues", "resume", "asks", "--keys")
    assert text == "queue asks was not paused; 1 pause of its keys and limits ended; 1 node is queued, workers hold 0\n"
    execute_worker(infinite_loop=False)
    assert resolve(*held, timeout=10) == TENANT
    (action,) = json.loads(said("actions", "-o", "json"))
    assert (action["action"], action["target"]) == ("resume", "asks")


@pytest.mark.usefixtures("broker")
def test_limits_are_listed_with_what_is_used_of_them() -> None:
    assert said("queues", "limits") == "no function that the broker knows has a rate or a limit\n"
    with batch():
        for _ in range(3):
            Limited()(TENANT)
    execute_worker(infinite_loop=False)
    table = said("queues", "limits")
    assert "2 of 500 per 3600 s" in table
    assert "0 of 20" in table
    assert TENANT in table
    assert "2 of 2 per 3600 s" in table
    api, tenant = json.loads(said("queues", "limits", "-o", "json"))
    assert (api["name"], api["shared"], api["key"], api["starts"], api["queued"]) == ("api", True, None, 2, 0)
    assert api["declared_by"].endswith("Limited.shares")
    assert api["next_start"] is None
    assert (tenant["name"], tenant["shared"], tenant["key"]) == (f"{__name__}:Limited.entrypoint", False, TENANT)
    assert (tenant["rate"], tenant["starts"], tenant["queued"]) == ({"starts": 2, "seconds": 3600}, 2, 1)
    assert tenant["next_start"] > 1e9
    assert [each["name"] for each in json.loads(said("status", "-o", "json"))["limits"]] == [
        api["name"],
        tenant["name"],
    ]
    assert "2 of 500 per 3600 s" in said("status")
