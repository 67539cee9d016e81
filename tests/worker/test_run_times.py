"""Run times by function in memory that a slot's children share with the supervisor."""

import os
from threading import Thread

import pytest

from dagorama.worker.run_times import NAME_BYTES, OTHER, ROWS, RunTimes


def read(run_times: RunTimes) -> dict[str, tuple[dict[int, int], int]]:
    return {
        name: ({bits: count for bits, count in enumerate(counts) if count}, total)
        for name, counts, total in run_times.read()
    }


def in_a_fork(run: object) -> None:
    """Call it in a child, as the fork server does."""
    pid = os.fork()
    if not pid:
        try:
            run()  # type: ignore[operator]  # a function without arguments
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def test_runs_are_counted_by_function_and_bit_length() -> None:
    run_times = RunTimes()
    assert read(run_times) == {}
    for microseconds in (0, 1, 5, 7, 2**32 - 1):
        run_times.add("work:Task.leaf", microseconds)
    run_times.add("work:Task.ünicode", 100)
    assert read(run_times) == {
        "work:Task.leaf": ({0: 1, 1: 1, 3: 2, 32: 1}, 13 + 2**32 - 1),
        "work:Task.ünicode": ({7: 1}, 100),
    }


def test_the_counts_of_a_child_stay_and_the_next_child_goes_on() -> None:
    run_times = RunTimes()
    in_a_fork(lambda: run_times.add("one", 4))
    in_a_fork(lambda: [run_times.add("two", 1), run_times.add("one", 4)])
    assert read(run_times) == {"one": ({3: 2}, 8), "two": ({1: 1}, 1)}


def test_a_fork_of_a_child_counts_nothing() -> None:
    run_times = RunTimes()
    run_times.add("one", 1)

    def fork() -> None:
        run_times.forget()
        run_times.add("one", 1)

    in_a_fork(fork)
    assert read(run_times) == {"one": ({1: 1}, 1)}


def test_functions_beyond_the_last_row_are_counted_together() -> None:
    run_times = RunTimes()
    for number in range(ROWS + 10):
        run_times.add(f"function {number}", 1)
    found = read(run_times)
    assert len(found) == ROWS
    assert found[OTHER] == ({1: 11}, 11)


@pytest.mark.parametrize("name", ["f" * (NAME_BYTES + 1), "\ud800", ""])
def test_a_strange_name_is_counted(name: str) -> None:
    run_times = RunTimes()
    for _ in range(2):
        run_times.add(name, 1)
    assert [counts[1] for _, counts, _ in run_times.read()] == [2]


def test_threads_lose_no_counts() -> None:
    run_times = RunTimes()
    threads = [Thread(target=lambda: [run_times.add("f", 1) for _ in range(2_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(run_times) == {"f": ({1: 8_000}, 8_000)}
