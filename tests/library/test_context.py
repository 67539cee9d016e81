"""What a node can ask about its own run."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from uuid import UUID

import pytest

from dagorama.context import CurrentNode, RunningNode, cancelled, current, current_run, report
from dagorama.errors import NotInNode

CALL = SimpleNamespace(
    instance=UUID(int=1).bytes, id=UUID(int=7).bytes, work=SimpleNamespace(name="app.work:Dag.Inner.step")
)


def test_nothing_is_cancelled_outside_a_node() -> None:
    assert not cancelled()


def test_a_node_sees_that_it_is_cancelled_by_any_caller() -> None:
    told = threading.Event()
    run = RunningNode(2, told.is_set)
    token = current_run.set(run)
    try:
        assert (cancelled(), run.number) == (False, 2)
        teller = threading.Thread(target=told.set)
        teller.start()
        teller.join()
        assert cancelled()
    finally:
        current_run.reset(token)
    assert not cancelled()


async def test_tasks_see_each_its_own_run() -> None:
    async def node(run: RunningNode) -> tuple[bool, bool]:
        current_run.set(run)
        await asyncio.sleep(0)
        return cancelled(), await asyncio.to_thread(cancelled)

    told, unnotified = await asyncio.gather(node(RunningNode(1, lambda: True)), node(RunningNode()))
    assert (told, unnotified) == ((True, True), (False, False))


@contextmanager
def running(run: RunningNode) -> Iterator[None]:
    token = current_run.set(run)
    try:
        yield
    finally:
        current_run.reset(token)


def test_a_node_can_ask_which_node_and_attempt_it_is() -> None:
    with running(RunningNode(2, call=CALL)):
        node = current()
    assert node == CurrentNode(UUID(int=1), UUID(int=7), 2, "app.work:Dag.Inner.step")
    assert node.definition == "app.work:Dag.Inner"
    assert str(node) == f"app.work:Dag.Inner.step (instance {UUID(int=1)}, node {UUID(int=7)}, attempt 2)"
    assert node.short == "00000000 #7 Dag.Inner.step, attempt 2"


def test_there_is_no_current_node_outside_a_node() -> None:
    with pytest.raises(NotInNode, match="no node runs here"):
        current()
    with running(RunningNode()), pytest.raises(NotInNode):
        current()


def test_the_logger_of_a_node_is_that_of_its_module_and_its_records_carry_the_node(
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = current_run.set(RunningNode(2, call=CALL))
    try:
        with caplog.at_level("INFO", logger="app.work"):
            current().logger.info("by %s", "the node")
    finally:
        current_run.reset(token)
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("app.work", "by the node")
    carried = record.__dict__
    assert (carried["instance"], carried["node"]) == (str(UUID(int=1)), str(UUID(int=7)))
    assert (carried["attempt"], carried["function"]) == (2, "app.work:Dag.Inner.step")


def test_a_report_goes_to_the_log_of_the_run_and_a_run_without_one_takes_it_too() -> None:
    said: list[tuple[str, float | None]] = []
    log = SimpleNamespace(report=lambda message, fraction: said.append((message, fraction)))
    made = RunningNode(1, attempt=SimpleNamespace(), call=CALL, open_log=lambda run: log)
    for run in (made, RunningNode(1, call=CALL)):
        token = current_run.set(run)
        try:
            report("half", 0.5)
            for wrong in (-0.1, 1.1, float("nan")):
                with pytest.raises(ValueError, match="the fraction of a report is from 0 to 1"):
                    report("wrong", wrong)
        finally:
            current_run.reset(token)
    assert said == [("half", 0.5)]
    with pytest.raises(NotInNode, match=r"call report\(\)"):
        report("nowhere")
