"""Async methods that are awaited once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


class AwaitedOnce(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        page = await self.fetch(number)
        return self.total([page, await self.fetch(2)])


class Gathered(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        pages = await asyncio.gather(*(self.fetch(i) for i in range(number)))
        return self.total(pages)


class GatheredLater(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        coming = [self.fetch(i) for i in range(number)]
        coming.append(self.fetch(9))
        return self.total(await asyncio.gather(*coming))


class AwaitedLater(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        coming = self.fetch(number)
        await asyncio.sleep(0)
        return await coming


class TaskGroup(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.fetch(i)) for i in range(number)]
        return self.total([task.result() for task in tasks])


class HelperReturnsCoroutine(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        return await self.page(number)

    def page(self, number: int) -> Coroutine[Any, Any, int]:
        return self.fetch(number)


class AsyncHelper(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> Any:
        return self.total(await self.pages(number))

    async def pages(self, number: int) -> list[int]:
        return [await self.fetch(i) for i in range(number)]


class AwaitedValues(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        number += await self.plain(number)
        return number

    async def plain(self, number: int) -> int:
        return number + 1
