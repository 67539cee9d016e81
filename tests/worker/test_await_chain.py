"""The stack of a suspended coroutine: who awaits whom, across tasks and generators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from dagorama.worker.child.async_runner import await_chain


async def waits(event: asyncio.Event) -> None:
    await event.wait()


async def in_a_task(event: asyncio.Event) -> None:
    await asyncio.create_task(waits(event))


async def generates(event: asyncio.Event) -> AsyncIterator[int]:
    await waits(event)
    yield 1


async def over_a_generator(event: asyncio.Event) -> None:
    async for _ in generates(event):
        pass


async def names_of(coroutine: object, task: asyncio.Task[None]) -> list[str]:
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return [line.split()[-1] for line in await_chain(coroutine)]


async def test_each_coroutine_has_a_line_down_to_the_one_that_waits() -> None:
    event = asyncio.Event()
    for function, chain in ((waits, ["waits"]), (in_a_task, ["in_a_task", "waits"])):
        coroutine = function(event)
        task = asyncio.create_task(coroutine)
        assert await names_of(coroutine, task) == [*chain, "wait"]
        task.cancel()


async def test_a_loop_over_an_async_generator_has_a_line() -> None:
    coroutine = over_a_generator(asyncio.Event())
    task = asyncio.create_task(coroutine)
    assert (await names_of(coroutine, task))[0] == "over_a_generator"
    task.cancel()


async def test_an_ended_coroutine_and_other_objects_have_no_line() -> None:
    async def ends() -> None: ...

    coroutine = ends()
    await coroutine
    assert list(await_chain(coroutine)) == []
    assert list(await_chain(object())) == []
    assert list(await_chain(None)) == []
