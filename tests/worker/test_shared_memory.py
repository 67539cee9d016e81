"""Memory that a supervisor and a child share, with a real child where it matters."""

import asyncio
import os
import signal
from collections.abc import Iterator
from importlib import import_module
from typing import NoReturn

import pytest

from dagorama.worker.shared_memory import RING, FileLock, SharedMemory, SlotMemory


def no_semaphores(*_: object) -> NoReturn:
    raise OSError(38, "Function not implemented")


@pytest.fixture(params=["semaphore", "file"])
def slot(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlotMemory]:
    """With the lock that most systems have, and with that of a system without POSIX semaphores."""
    if request.param == "file":
        import_module("multiprocessing.synchronize")  # it reads a constant of semaphores when it is first imported
        monkeypatch.setattr("_multiprocessing.SemLock", no_semaphores)
    slot = SharedMemory(1).slots[0]
    assert isinstance(slot._lock, FileLock) == (request.param == "file")
    yield slot
    if isinstance(slot._lock, FileLock):
        slot._lock._file.close()


def in_another_process(action: object) -> int:
    """Run `action` in a fork and return the wait status."""
    assert callable(action)
    pid = os.fork()
    if not pid:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def test_the_supervisor_sees_what_its_child_runs(slot: SlotMemory) -> None:
    def child() -> None:
        assert slot.start(0, entry=3, now=1000)
        assert slot.start(1, entry=0, now=2000)
        slot.finish(3)

    slot.open(0, 2)
    assert in_another_process(child) == 0
    assert slot.running() == [(1, 2000)]
    assert slot.started() == 2


def test_a_fork_of_the_child_sees_what_is_cancelled_and_changes_nothing(slot: SlotMemory) -> None:
    def fork() -> None:
        slot.forget()
        assert slot.start(1, entry=0, now=2000)
        slot.finish(3)
        assert slot.is_cancelled(3, 0)

    slot.open(0, 2)
    slot.start(0, entry=3, now=1000)
    slot.cancel([0])
    slot._lock.acquire()  # as another thread of the child may have done
    assert in_another_process(fork) == 0
    slot._lock.release()
    assert (slot.running(), slot.started()) == ([(0, 1000)], 1)


def test_what_has_not_started_is_taken_back_and_never_starts(slot: SlotMemory) -> None:
    slot.open(0, 4)
    slot.start(0, entry=0, now=1)
    assert slot.take_back([0, 1, 3]) == [1, 3]
    assert slot.take_back([1]) == []
    assert [slot.start(ordinal, entry=0, now=2) for ordinal in (1, 2, 3)] == [False, True, False]


def test_marks_are_used_again_after_a_round(slot: SlotMemory) -> None:
    slot.open(RING - 1, 3)
    assert slot.take_back([RING - 1, RING, RING + 1]) == [RING - 1, RING, RING + 1]
    slot.open(2 * RING - 1, 3)
    assert slot.start(2 * RING - 1, entry=0, now=1)
    assert slot.start(2 * RING, entry=0, now=1)


def test_taking_back_gives_up_when_the_child_was_stopped_inside_the_lock(slot: SlotMemory) -> None:
    slot._lock.acquire()
    assert slot.take_back([0]) is None


def test_a_child_killed_inside_the_lock_leaves_a_slot_that_works_after_reset(slot: SlotMemory) -> None:
    def child() -> None:
        slot.start(0, entry=0, now=1)
        slot._lock.acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_another_process(child) == signal.SIGKILL
    slot.reset()
    assert slot.running() == []
    assert slot.start(0, entry=0, now=1)
    assert slot.take_back([1]) == [1]


def test_a_running_node_hears_that_it_is_cancelled_and_its_successor_does_not(slot: SlotMemory) -> None:
    slot.open(0, 3)
    slot.start(0, entry=0, now=1)
    slot.start(1, entry=7, now=2)
    assert slot.cancel([0, 1, 2]) == [0, 1]
    assert slot.is_cancelled(0, 0)
    assert slot.is_cancelled(7, 1)
    slot.finish(0)
    slot.start(2, entry=0, now=3)
    assert not slot.is_cancelled(0, 2)
    assert slot.cancel([0]) == []


def test_a_loop_is_woken_in_whichever_process_watches(slot: SlotMemory) -> None:
    def child() -> None:
        async def watch() -> None:
            heard = asyncio.Event()
            slot.watch(asyncio.get_running_loop(), heard.set)
            await heard.wait()
            assert slot.is_cancelled(5, 0)

        asyncio.run(watch())

    slot.open(0, 1)
    slot.start(0, entry=5, now=1)
    slot.cancel([0])
    assert in_another_process(child) == 0


def test_every_process_sees_from_which_size_values_are_large() -> None:
    memory = SharedMemory(2)
    memory.large_from = 4096

    def child() -> None:
        assert memory.large_from == 4096

    assert in_another_process(child) == 0
