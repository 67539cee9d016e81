"""Plain code that calls definitions."""

import asyncio

from dagorama import dagorama, outcome, resolve
from tests.check.planted.nodes import Nodes


class Task(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number)


class Crawl(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        return number


def plain_condition() -> None:
    instance, promise = Task()(1)
    if promise:  #: DAG001
        print(instance)


def plain_sum() -> None:
    _, promise = Task()(1)
    print(promise + 1)  #: DAG002


def plain_printed() -> None:
    instance, promise = Task()(1)
    print(promise)  #: DAG005


def plain_item_of_pair() -> None:
    pair = Task()(1)
    pair[1].real  #: DAG003


def plain_indexed() -> None:
    print(f"{Task()(1)[1]}")  #: DAG002


def plain_call_on_instance() -> None:
    task = Task()
    instance, _ = task(1)
    size = instance.measure(2)
    assert size == 4  #: DAG002


def plain_outcome() -> None:
    instance, promise = Task()(1)
    print(outcome(promise) * 2)  #: DAG002


def plain_many() -> None:
    started = [Task()(i) for i in range(3)]
    sum(promise for _, promise in started)  #: DAG005


def plain_async_without_await() -> None:
    instance, promise = Crawl()(1)  #: DAG006


def plain_star_of_coroutine() -> None:
    resolve(*Crawl()(1))  #: DAG006


async def plain_awaited_pair() -> None:
    await Task()(1)  #: DAG006


async def plain_awaited_promise() -> None:
    instance, promise = await Crawl()(1)
    await promise  #: DAG006


def plain_run_of_promise() -> None:
    instance, promise = Task()(1)
    asyncio.run(promise)  #: DAG006


class PlainEntry(Nodes):
    def entrypoint(self, number: int) -> list[int]:
        return [self.measure(i) for i in range(number)]


def plain_list_of_promises() -> None:
    instance, sizes = PlainEntry()(3)
    print(sum(sizes))  #: DAG005
