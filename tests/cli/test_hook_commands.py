"""Commands say of a node that it is the failure hook of its instance, and what it is called with."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from dagorama import DAGDefinition, Failure, NodeFailed, dagorama, on_failure, resolve
from dagorama.__main__ import main
from tests.support.brokers import launch_broker
from tests.support.workers import launch_workers


class Shapes(DAGDefinition):
    @dagorama
    def entrypoint(self, corners: int) -> str:
        raise ValueError(f"no shape has {corners} corners")

    @on_failure(taint_name="MAIL")
    def tell(self, failure: Failure) -> None: ...


def said(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_hook_that_waits_for_its_worker_is_shown_as_one() -> None:
    with launch_broker(port=0, store="memory://"), launch_workers(1):
        instance, promise = Shapes()(2)
        with pytest.raises(NodeFailed):
            resolve(instance, promise, timeout=60)
        id = str(instance.instance_id)
        nodes = json.loads(said("show", id, "-o", "json"))["nodes"]
        assert [node["failure_hook"] for node in nodes] == [False, True]
        hook = nodes[1]["node"]
        assert "the failure hook of its instance" in said("show", id, hook)
        assert "message='no shape has 2 corners'" in said("show", id, hook, "--arguments")
        explained = said("explain", id, hook)
        assert "It is the failure hook of its instance" in explained
        assert "MAIL" in explained
        assert "(failure hook)" in said("graph", id, "--by", "node")
