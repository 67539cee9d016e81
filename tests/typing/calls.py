"""What the type checkers see of a decorated call: the function as it was written."""

from typing import assert_type

import dagorama as package
from dagorama import DAGDefinition, ExponentialRetry, StaticRetry, dagorama
from dagorama.decorators import dagorama as same_decorator

gpu = dagorama(taint_name="GPU", queue_name="gpu", retry=StaticRetry(3, 0.5))


class Sync(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        assert_type(self.work(number), int)
        assert_type(self.join([self.work(n) for n in range(number)], sep=","), str)
        assert_type(self.called(1), int)
        assert_type(self.bare(1), int)
        assert_type(self.on_gpu(b"x"), bytes)
        return self.join([self.work(number)])

    @dagorama("queue", "taint", ExponentialRetry(3)).syncfn
    def work(self, number: int, *, twice: bool = False) -> int:
        return number * 2 if twice else number

    @same_decorator().syncfn
    def join(self, numbers: list[int], sep: str = " ") -> str:
        return sep.join(map(str, numbers))

    @dagorama()
    def called(self, number: int) -> int:
        return number

    @package.dagorama
    def bare(self, number: int) -> int:
        return number

    @gpu.syncfn
    def on_gpu(self, data: bytes) -> bytes:
        return data


class Async(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> list[int]:
        assert_type(await self.work(1), int)
        assert_type(await self.called(1), int)
        assert_type(await self.bare(1), int)
        return [await self.work(n) for n in range(number)]

    @dagorama().asyncfn
    async def work(self, number: int) -> int:
        return number

    @dagorama()
    async def called(self, number: int) -> int:
        return number

    @dagorama
    async def bare(self, number: int) -> int:
        return number


class Override(Sync):
    @dagorama().syncfn
    def work(self, number: int, *, twice: bool = False) -> int:
        assert_type(super().work(number), int)
        return super().work(number, twice=twice)
