"""`dagorama queues limits`: what is used of rates and shared limits, and what waits for them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from dagorama import DAGDefinition, Limit, Rate, batch, dagorama, execute_worker
from dagorama.__main__ import main
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
