"""DAG006: coroutines that are not awaited, and promises that are."""

import asyncio

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


class NotAwaited(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        return self.fetch(number) + 1  #: DAG006


class PassedOn(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        return self.total([self.fetch(i) for i in range(number)])  #: DAG006


class PassedOnAlone(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        page = self.fetch(number)
        return self.measure(page)  #: DAG006


class AwaitedPromise(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        return await self.measure(number)  #: DAG006


class AwaitedTwice(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        page = await self.fetch(number)
        return await page  #: DAG006


class GatheredPromises(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> list[int]:
        return await asyncio.gather(self.measure(1), self.measure(2))  #: DAG006


class GatheredStar(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> list[int]:
        return await asyncio.gather(*[self.measure(i) for i in range(number)])  #: DAG006


class CoroutineIterated(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        for name in self.fetched_names(number):  #: DAG006
            print(name)
        return number


class CoroutineAttribute(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        return self.fetch(number).real  #: DAG006


class CoroutineItem(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> str:
        names = self.fetched_names(number)
        return names[0]  #: DAG006
