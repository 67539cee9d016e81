"""Where a commit is made: in the store's thread, or by the loop itself where that is sooner over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event, get_ident

import pytest

from dagorama_broker.engine import commits
from dagorama_broker.engine.commits import FEW, CommitExecutor
from dagorama_broker.model.rows import Changes, RemovedRow
from tests.support.raw import Dag, serving, submit
from tests.support.records import graph, node

SHORT = graph(*map(node, range(1, FEW)))


@pytest.fixture
def thread() -> Iterator[CommitExecutor]:
    thread = CommitExecutor()
    yield thread
    thread.shutdown()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Each commit takes as many seconds as it is given."""
    now, step = 0.0, 0.0

    def tick() -> float:
        nonlocal now
        now += step
        return now

    def takes(seconds: float) -> None:
        nonlocal step
        step = seconds

    monkeypatch.setattr(commits, "perf_counter", tick)
    return takes


def test_a_short_commit_is_made_outside_once_the_disk_has_shown_that_it_is_quick(
    thread: CommitExecutor, clock: Callable[[float], None]
) -> None:
    clock(0.0002)
    assert not thread.may_commit_outside(SHORT)
    thread.timed(lambda _: None, SHORT)
    assert thread.may_commit_outside(SHORT)


def test_without_short_commits_none_is_made_outside_however_quick_the_disk_is(clock: Callable[[float], None]) -> None:
    clock(0.0002)
    thread, uncounted = CommitExecutor(few=0), Changes(workers_joined=[(b"w" * 16, "w")])
    for _ in range(100):
        thread.timed(lambda _: None, uncounted)
        assert not thread.may_commit_outside(uncounted)
    thread.shutdown()


def test_commits_of_many_rows_and_removals_go_to_the_thread(
    thread: CommitExecutor, clock: Callable[[float], None]
) -> None:
    clock(0.0002)
    thread.timed(lambda _: None, SHORT)
    assert not thread.may_commit_outside(graph(*map(node, range(1, FEW + 1))))  # and its instance
    assert not thread.may_commit_outside(Changes(removed=[RemovedRow(1, b"i" * 16, 1.0, False, 1.0)]))


def test_a_slow_disk_sends_commits_to_the_thread_until_it_is_quick_again(
    thread: CommitExecutor, clock: Callable[[float], None]
) -> None:
    clock(0.0002)
    thread.timed(lambda _: None, SHORT)
    clock(0.010)
    thread.timed(lambda _: None, SHORT)
    assert not thread.may_commit_outside(SHORT)
    clock(0.0002)
    for _ in range(40):
        thread.timed(lambda _: None, SHORT)
    assert thread.may_commit_outside(SHORT)


def test_one_slow_commit_among_quick_ones_is_no_slow_disk(
    thread: CommitExecutor, clock: Callable[[float], None]
) -> None:
    for seconds in (*[0.0002] * 20, 0.002):
        clock(seconds)
        thread.timed(lambda _: None, SHORT)
    assert thread.may_commit_outside(SHORT)


def test_a_disk_that_stalls_once_does_not_stall_the_loop_again(
    thread: CommitExecutor, clock: Callable[[float], None]
) -> None:
    for seconds in (*[0.0002] * 20, 0.1, *[0.0002] * 3):
        clock(seconds)
        thread.timed(lambda _: None, SHORT)
    assert not thread.may_commit_outside(SHORT)


def test_commits_that_wait_for_the_processor_do_not_make_the_disk_slow(
    thread: CommitExecutor, clock: Callable[[float], None]
) -> None:
    for seconds in (0.004, 0.0002, 0.003, 0.002, 0.0004, 0.005):
        clock(seconds)
        thread.timed(lambda _: None, SHORT)
    assert thread.may_commit_outside(SHORT)


def test_processor_time_of_a_commit_does_not_count_for_it_is_spent_in_either_place(
    thread: CommitExecutor, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = 0.0

    def spend(seconds: float) -> Callable[[Changes], None]:
        def commit(_: Changes) -> None:
            nonlocal spent
            spent += seconds

        return commit

    monkeypatch.setattr(commits, "thread_time", lambda: spent)
    clock(0.003)
    thread.timed(spend(0.0028), SHORT)
    assert thread.may_commit_outside(SHORT)
    thread.timed(spend(0.0), SHORT)
    thread.timed(spend(0.0), SHORT)
    assert not thread.may_commit_outside(SHORT)


def test_a_long_commit_says_nothing_of_short_ones(thread: CommitExecutor, clock: Callable[[float], None]) -> None:
    clock(0.0002)
    thread.timed(lambda _: None, SHORT)
    clock(1.0)
    thread.timed(lambda _: None, graph(*map(node, range(1, 100))))
    assert thread.may_commit_outside(SHORT)


def test_no_commit_is_made_outside_while_the_thread_is_in_the_store(
    thread: CommitExecutor, clock: Callable[[float], None]
) -> None:
    clock(0.0002)
    thread.timed(lambda _: None, SHORT)
    began, go_on = Event(), Event()

    def read() -> None:
        began.set()
        go_on.wait()

    running = thread.submit(read)
    began.wait()
    called_off = thread.submit(read)
    called_off.cancel()  # the last one is over, and another runs
    assert not thread.may_commit_outside(SHORT)
    go_on.set()
    running.result()
    assert thread.may_commit_outside(SHORT)


async def test_a_broker_makes_short_commits_in_its_loop_and_others_in_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commits, "QUICK", 60.0)
    async with serving() as served:
        threads: list[tuple[int, int]] = []
        commit = served.broker.store.commit

        def noting(changes: Changes) -> None:
            threads.append((len(changes.nodes), get_ident()))
            commit(changes)

        monkeypatch.setattr(served.broker.store, "commit", noting)
        for nodes in (*[1] * 20, 100):
            await submit(served.stub, Dag().submission(*[b"a"] * nodes))
    # The thread may have other work while the first ones are committed: then it makes these commits too.
    assert (1, get_ident()) in threads
    assert (100, get_ident()) not in threads


def test_no_commit_is_made_outside_where_none_may_be_though_it_holds_no_rows_to_count() -> None:
    """What could go wrong: a simulated disk is quick, and real time decides where a commit is made."""
    thread = CommitExecutor(few=0)
    only_workers = Changes(workers_joined=[(b"worker-id", "host:1")])
    for _ in range(50):
        thread.timed(lambda changes: None, only_workers)
    assert not thread.may_commit_outside(only_workers)
    thread.shutdown()
