"""Async functions overlap: one worker waits for a hundred of them at once.

Run: python samples/async_dag.py

An async entry point makes the call awaitable: `instance, promise = await Crawl()(...)`. In its body a decorated call
is awaited like any coroutine; the result is a promise, which is passed on like any value.
"""

from asyncio import gather, run, sleep
from time import monotonic

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, DAGInstance, resolve
from dagorama.models.promise import DAGPromise
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker

PAGES = 60
LATENCY = 0.5


class Crawl(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, pages: int) -> int:
        sizes = await gather(*(self.fetch(page) for page in range(pages)))
        return await self.total(sizes)

    @dagorama().asyncfn
    async def fetch(self, page: int) -> int:
        await sleep(LATENCY)  # stands for a server far away
        return 100 + page

    @dagorama().asyncfn
    async def total(self, sizes: list[int]) -> int:
        return sum(sizes)


async def spawn() -> tuple[DAGInstance, DAGPromise[int]]:
    return await Crawl()(PAGES)


def main() -> None:
    with launch_broker(port=0), launch_workers(1):
        start = monotonic()
        instance, promise = run(spawn())
        answer = resolve(instance, promise, timeout=30)
        seconds = monotonic() - start

    print(f"{PAGES} pages, {answer} bytes in {seconds:.2f}s; one after the other it takes {PAGES * LATENCY:.0f}s")
    assert answer == sum(100 + page for page in range(PAGES))
    assert seconds < PAGES * LATENCY / 3


if __name__ == "__main__":
    main()
