"""A pool over workers that are real processes: it starts them by demand, finds them again, and lets them go."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue

import pytest

from dagorama.pools import pool
from dagorama.pools.options import PoolOptions
from dagorama.pools.pool import Pool
from tests.pools.stories import WAIT, Node, is_leaving, names, until
from tests.support.brokers import launch_broker
from tests.support.local_engine import LocalEngine


@pytest.mark.slow
def test_workers_come_with_the_work_and_the_next_pool_finds_them_and_lets_them_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "PACE", 0.05)
    monkeypatch.setattr(pool, "LOOK", 0.2)
    members, work = tmp_path / "members", tmp_path / "work"
    members.mkdir()
    work.mkdir()
    options = PoolOptions("p", max=2)
    with launch_broker(port=0):
        node = Node(work)
        engines = [LocalEngine(members) for _ in range(3)]
        first = Pool(engines[0], options)
        first.__enter__()
        assert names() == []
        value = node.submit()
        node.running()
        assert names() == ["p/0000"]
        first.stop()
        with Pool(engines[1], options):
            other = node.submit()
            node.running(2)
            assert names() == ["p/0000", "p/0001"]
            Pool(engines[2], options).drain(wait=False)
            until(is_leaving)
            node.let_go()
            assert (value(), other()) == ("let go", "let go")
            until(lambda: names() == [])
        assert len(node.pids()) == 2
    for engine in engines:
        engine.reap()


@pytest.mark.slow
def test_a_pool_and_its_workers_outlive_the_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed broker goes on with its store: the node that ran is not run again, and no worker is started for it."""
    monkeypatch.setattr(pool, "PACE", 0.05)
    monkeypatch.setattr(pool, "LOOK", 0.2)
    members, work, said = tmp_path / "members", tmp_path / "work", SimpleQueue[str]()
    members.mkdir()
    work.mkdir()
    engine = LocalEngine(members)
    with launch_broker(port=0, store=f"sqlite:///{tmp_path}/store") as broker:
        node = Node(work)
        with Pool(engine, PoolOptions("p", max=2), say=lambda text, is_warning: said.put(text)):
            value = node.submit()
            node.running()
            broker.kill()
            while "it keeps its workers and waits" not in said.get(timeout=WAIT):
                pass
            broker.restart()
            while "the broker answers again" not in said.get(timeout=WAIT):
                pass
            until(lambda: names() == ["p/0000"])
            node.let_go()
            assert value() == "let go"
            assert len(node.pids()) == 1
            assert len(list(members.iterdir())) == 1
    engine.reap()
