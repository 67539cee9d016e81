"""DAG007: a node waits for nodes that start when it has ended."""

import dagorama
from dagorama import as_completed, resolve
from dagorama.client.results import aresolve, resolve_all
from tests.check.planted.nodes import Nodes


class Waits(Nodes):
    @dagorama.dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return resolve(self, self.measure(number), timeout=None)  #: DAG007


class WaitsForAll(Nodes):
    @dagorama.dagorama().syncfn
    def entrypoint(self, number: int) -> list[int]:
        sizes = [self.measure(i) for i in range(number)]
        return resolve_all([(self, size) for size in sizes])  #: DAG007


class WaitsForEach(Nodes):
    @dagorama.dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        sizes = [self.measure(i) for i in range(number)]
        for size in as_completed(self, sizes):  #: DAG007
            print(repr(size))
        return number


class WaitsAsync(Nodes):
    @dagorama.dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        page = await self.fetch(number)
        return await aresolve(self, page)  #: DAG007


class WaitsForInstance(Nodes):
    @dagorama.dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        if number == 1:
            return number
        return dagorama.resolve(*WaitsForInstance()(1), timeout=10)  #: DAG007
