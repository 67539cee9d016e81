"""Eager functions from end to end: children run while their parent does, and go with a run that is aborted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from dagorama import (
    DAGDefinition,
    NodeCancelled,
    NodeFailed,
    PromiseMisuse,
    StaticRetry,
    dagorama,
    execute_worker,
    resolve,
)
from tests.support.brokers import launch_broker
from tests.support.starting import forever, note, start
from tests.support.transports import both_transports
from tests.support.troubles import meet
from tests.support.workers import launch_workers

__all__ = ["both_transports"]

pytestmark = pytest.mark.usefixtures("both_transports")

WAIT = 30


@pytest.fixture(autouse=True)
def broker() -> Iterator[None]:
    with launch_broker(port=0, environment={"DAGORAMA_CANCEL_GRACE": "0.5"}):
        yield


class Meeting(DAGDefinition):
    """The entry node ends only when both of its children run next to it."""

    @dagorama(stream_children=True).syncfn
    def entrypoint(self, folder: str) -> Any:
        children = [self.child(folder, name) for name in "ab"]
        meet(folder, "parent", 3)
        return self.both(children, self.late())

    @dagorama().syncfn
    def child(self, folder: str, name: str) -> str:
        return meet(folder, name, 3)

    @dagorama().syncfn
    def late(self) -> str:
        return "late"

    @dagorama().syncfn
    def both(self, names: list[str], late: str) -> list[str]:
        return [*names, late]


class MeetingAsync(Meeting):
    @dagorama(stream_children=True).asyncfn
    async def entrypoint(self, folder: str) -> Any:
        children = [self.child(folder, name) for name in "ab"]
        await asyncio.to_thread(meet, folder, "parent", 3)
        return self.both(children, self.late())


@pytest.mark.parametrize("definition", [Meeting, MeetingAsync])
def test_children_run_while_their_parent_runs(tmp_path: Path, definition: Any) -> None:
    with launch_workers(3):
        assert resolve(*start(definition(), str(tmp_path)), timeout=WAIT) == ["a", "b", "late"]


def number_of(folder: str) -> int:
    """Of a run, also where the one before has died, which counts as none."""
    return 2 if Path(folder, "parent").exists() else 1


class Repeating(DAGDefinition):
    """Its first run makes children, waits until one of them has run and another runs, and is aborted."""

    def entrypoint(self, notes: str, folder: str, how: str) -> Any:
        return self.work(notes, folder, how)

    @dagorama(stream_children=True, retry=StaticRetry(max_attempts=2, interval=0), timeout=20).syncfn
    def work(self, notes: str, folder: str, how: str) -> Any:
        run = number_of(folder)
        done = self.add(notes, f"done {run}")
        left = self.add(notes, f"left {run}") if run > 1 else self.stay(folder, done)
        last = self.add(notes, f"last {run}", left)
        if run == 1:
            meet(folder, "parent", 2)
            if how == "dies":
                os._exit(9)
            raise ValueError("after all")
        return self.gather([done, left, last])

    @dagorama().syncfn
    def add(self, notes: str, name: str, after: Any = None) -> str:
        note(notes, name)
        return name

    @dagorama().syncfn
    def stay(self, folder: str, done: str) -> str:
        """Run until told to stop."""
        meet(folder, "child", 2)
        forever()
        return done

    @dagorama().syncfn
    def gather(self, names: list[str]) -> list[str]:
        return names


@pytest.mark.parametrize("how", ["raises", "dies"])
def test_the_retry_of_an_aborted_run_has_its_own_children_and_they_run_once(tmp_path: Path, how: str) -> None:
    notes, folder = tmp_path / "notes", tmp_path / "met"
    folder.mkdir()
    with launch_workers(2):
        found = resolve(*Repeating()(str(notes), str(folder), how), timeout=WAIT)
    assert found == ["done 2", "left 2", "last 2"]
    assert sorted(notes.read_text().split("\n")[:-1]) == ["done 1", "done 2", "last 2", "left 2"]


class Failing(DAGDefinition):
    @dagorama(stream_children=True).syncfn
    def entrypoint(self, folder: str) -> Any:
        _, promise = Inner()(folder)
        Path(folder, "promise").write_text(f"{promise.instance_id}")
        meet(folder, "parent", 3)
        raise ValueError("after all")


class Inner(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, folder: str) -> Any:
        meet(folder, "child", 3)
        forever()


def test_an_instance_that_a_failed_run_made_is_cancelled_with_its_reason(tmp_path: Path) -> None:
    with launch_workers(2):
        with pytest.raises(NodeFailed, match="after all"):
            resolve(*Failing()(str(tmp_path)), timeout=WAIT)
        inner = Inner.attach(tmp_path.joinpath("promise").read_text())
        with pytest.raises(NodeCancelled, match=r"the run of .*Failing\.entrypoint that made it was rolled back"):
            resolve(*inner, timeout=WAIT)


class Impatient(DAGDefinition):
    @dagorama(stream_children=True).syncfn
    def entrypoint(self) -> str:
        promise: Any = self.child()
        try:
            resolve(cast(Any, self), promise, timeout=5)
        except PromiseMisuse as error:
            return str(error)
        return "it waited"

    @dagorama().syncfn
    def child(self) -> int:
        return 1


def test_waiting_for_what_the_same_run_made_is_refused_though_it_could_start() -> None:
    found = Impatient()()
    execute_worker(infinite_loop=False)
    assert "which may need the slot that this node occupies; return the promise" in resolve(*found, timeout=WAIT)
