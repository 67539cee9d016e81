"""`report` in a node, and where people see it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagorama import DAGDefinition, NodeFailed, NotInNode, dagorama, report, resolve, watch
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.commands import forked
from tests.support.workers import launch_workers


class Reports(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, path: str, fraction: float) -> str:
        for number in range(10_000):
            report(f"file {number}")
        report("half \x1b[31mway", fraction)
        while not Path(path).exists():
            time.sleep(0.01)
        return "done"


@pytest.fixture(scope="module")
def broker() -> Iterator[LaunchedBroker]:
    with launch_broker(port=0) as broker, launch_workers(1):
        yield broker


def show(*arguments: str) -> str:
    shown = forked("show", *arguments)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_the_latest_report_is_seen_while_the_node_runs_and_no_longer(broker: LaunchedBroker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    instance, promise = Reports()(str(gate), 0.5)
    for progress in watch(instance):
        if progress.reports and progress.reports[0].fraction:
            break
    (found,) = progress.reports
    assert (found.node_id, found.message, found.fraction) == (promise.identifier, "half \x1b[31mway", 0.5)
    ids = f"{instance.instance_id}", f"{promise.identifier}"
    assert "reports          50 %  half \\x1b[31mway\n" in show(*ids).replace("50%", "50 %")
    shown = json.loads(show(*ids, "--json"))
    assert (shown["report"], shown["report_fraction"]) == ("half \x1b[31mway", 0.5)
    gate.touch()
    assert resolve(instance, promise, timeout=60) == "done"
    assert json.loads(show(*ids, "--json"))["report"] is None
    *_, last = watch(instance)
    assert last.reports == ()


def test_a_wrong_fraction_is_an_error_of_the_node(broker: LaunchedBroker) -> None:
    instance, promise = Reports()("", 50.0)
    with pytest.raises(NodeFailed, match="the fraction of a report is from 0 to 1, not 50"):
        resolve(instance, promise, timeout=60)


def test_outside_of_a_node_there_is_nothing_to_report_on() -> None:
    with pytest.raises(NotInNode, match=r"call report\(\) in a @dagorama method"):
        report("nowhere")
