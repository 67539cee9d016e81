"""What a node can ask about its own run."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from uuid import UUID

import pytest

from dagorama.context import CurrentNode, RunningNode, cancelled, current, current_run
from dagorama.errors import NotInNode

CALL = SimpleNamespace(
    instance=UUID(int=1).bytes, id=UUID(int=7).bytes, work=SimpleNamespace(name="app.work:Dag.Inner.step")
)


def test_nothing_is_cancelled_outside_a_node() -> None:
    assert not cancelled()


def test_a_node_sees_that_it_is_cancelled_whoever_says_so() -> None:
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
