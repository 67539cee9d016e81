"""Promises of async methods, which are awaited once and are then promises as any other."""

import asyncio
from asyncio import gather

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


class AwaitedCondition(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        if await self.fetch(number):  #: DAG001
            return 1
        return 0


class AwaitedSum(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        page = await self.fetch(number)
        return page + 1  #: DAG002


class GatheredSum(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        pages = await gather(*(self.fetch(i) for i in range(number)))
        return sum(pages)  #: DAG005


class GatheredTwo(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        one, two = await asyncio.gather(self.fetch(1), self.fetch(2))
        return one + two  #: DAG002


class AwaitedInComprehension(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> list[str]:
        return [f"{page}" for page in [await self.fetch(i) for i in range(number)]]  #: DAG002


class Task(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        task = asyncio.create_task(self.fetch(number))
        return (await task) + 1  #: DAG002


class AsyncFor(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        async for name in self.names(number):  #: DAG004
            print(name)
        return number


class AsyncWith(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        async with self.thing(number):  #: DAG003
            return number
