"""What a node can ask about its own run."""

import asyncio
import threading

from dagorama.running import Run, cancelled, current_run


def test_where_no_node_runs_nothing_is_cancelled() -> None:
    assert not cancelled()


def test_a_node_sees_that_it_is_cancelled_whoever_says_so() -> None:
    told = threading.Event()
    run = Run(2, told.is_set)
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
    async def node(run: Run) -> tuple[bool, bool]:
        current_run.set(run)
        await asyncio.sleep(0)
        return cancelled(), await asyncio.to_thread(cancelled)

    assert await asyncio.gather(node(Run(1, lambda: True)), node(Run())) == [(True, True), (False, False)]
