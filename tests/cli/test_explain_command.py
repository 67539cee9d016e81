"""`dagorama explain` keeps each reason readable."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from dagorama import DAGDefinition, NodeFailed, dagorama, resolve
from dagorama.__main__ import main
from tests.support.brokers import launch_broker
from tests.support.workers import launch_workers


class Verse(DAGDefinition):
    @dagorama
    def entrypoint(self) -> None:
        raise ValueError("roses are red\nviolets are blue")


def test_the_lines_of_a_failure_are_indented_below_their_reason() -> None:
    with launch_broker(port=0, store="memory://"), launch_workers(1):
        instance, promise = Verse()()
        with pytest.raises(NodeFailed):
            resolve(instance, promise, timeout=60)
        explained = CliRunner().invoke(main, ["explain", str(instance.instance_id), str(promise.identifier)])
    assert explained.exit_code == 0, explained.output
    reason = explained.stdout[explained.stdout.index("- ") :]
    assert "roses are red\n  violets are blue" in reason
