"""Processes are killed with SIGKILL in the middle of a graph that grows, at seeded points; the answer is the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from dagorama import resolve
from tests.support.brokers import BROKER, ForkedBroker, launch_broker
from tests.support.growing import Growing, is_struck, mixed, plain, width
from tests.support.transports import both_transports
from tests.support.workers import launch_workers

__all__ = ["both_transports"]

pytestmark = pytest.mark.usefixtures("both_transports")

DEPTH = 6


class DyingBroker(ForkedBroker):
    """Runs `dying_broker.py`, and again without a death planned whenever it has died."""

    program = BROKER._replace(name="tests.support.dying_broker:main")

    def __init__(self, store: str, deaths: list[tuple[int, str]]) -> None:
        super().__init__(0, store, "ERROR", {})
        self._deaths = deaths
        self.died = 0

    def start(self) -> None:
        commits, when = self._deaths.pop(0) if self._deaths else (0, "")
        self._environment = {"DIE_AT_COMMIT": str(commits), "DIE_WHEN": when}
        super().start()

    def restart_whenever_it_dies(self) -> None:
        while self._process is not None and self._process.wait() == -9:
            self.died += 1
            self.restart()


@contextmanager
def dying_broker(store: Path, deaths: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[DyingBroker]:
    broker = DyingBroker(f"sqlite:///{store}", deaths)
    broker.start()
    monkeypatch.setenv("DAGORAMA_HOST", broker.host)
    monkeypatch.setenv("DAGORAMA_PORT", str(broker.port))
    watcher = Thread(target=broker.restart_whenever_it_dies, daemon=True)
    watcher.start()
    try:
        yield broker
    finally:
        broker.stop()
        watcher.join(10)


@pytest.mark.parametrize("seed", range(6))
def test_kill_the_broker_between_decide_and_commit_or_commit_and_tell_and_the_answer_is_the_same(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    deaths = [(chance.randint(2, 7), chance.choice(["before", "after"])) for _ in range(3)]
    with dying_broker(tmp_path / "store.db", list(deaths), monkeypatch) as broker, launch_workers(2):
        instance, promise = Growing()(DEPTH, seed)
        assert resolve(instance, promise, timeout=60) == plain(DEPTH, seed)
        assert broker.died >= 1, f"none of {deaths} was reached"


def strikes_in(depth: int, seed: int, every: int) -> int:
    below = sum(strikes_in(depth - 1, mixed(seed, place), every) for place in range(width(seed))) if depth else 0
    return is_struck(seed, every) + below


@pytest.mark.parametrize("seed", range(3))
def test_kill_children_in_the_middle_and_the_answer_is_the_same(seed: int, tmp_path: Path) -> None:
    every = 7 + seed
    orders = [tmp_path / f"child-{number}" for number in range(3)]
    assert strikes_in(DEPTH, seed, every) > len(orders)
    for order in orders:
        order.touch()
    with launch_broker(port=0), launch_workers(2):
        instance, promise = Growing()(DEPTH, seed, str(tmp_path), every)
        assert resolve(instance, promise, timeout=60) == plain(DEPTH, seed)
    assert not any(order.exists() for order in orders)


@pytest.mark.parametrize("seed", range(2))
def test_kill_a_supervisor_in_the_middle_and_others_finish_with_the_same_answer(seed: int, tmp_path: Path) -> None:
    order = tmp_path / "supervisor-0"
    order.touch()
    with launch_broker(port=0), launch_workers(2) as struck:
        instance, promise = Growing()(DEPTH, seed, str(tmp_path), 5)
        for worker in struck:
            worker.join(60)
        assert not any(worker.is_alive() for worker in struck)
        assert not order.exists()
        with launch_workers(2):
            assert resolve(instance, promise, timeout=60) == plain(DEPTH, seed)
