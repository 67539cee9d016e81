"""Plain code that calls definitions in the right way."""

from __future__ import annotations

from typing import Any

import pytest

from dagorama import DAGPromise, PromiseMisuse, aresolve, as_completed, dagorama, resolve
from dagorama.errors import NotInInstance
from tests.check.planted.nodes import Nodes


class Task(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number)


class Crawl(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        return number


class Polling(Nodes):
    """Asks for the value of another instance, which may be there: nothing waits."""

    @dagorama().syncfn
    def entrypoint(self, number: int) -> Any:
        return self.thing(number)

    @dagorama().syncfn
    def peek(self, instance_id: str) -> Any:
        return resolve(*Task.attach(instance_id))


class OtherInstance(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        instance, promise = Task()(number)
        print(instance.instance_id)
        return promise


def plain_program() -> None:
    instance, promise = Task()(1)
    print(instance.instance_id, repr(promise))
    started = [Task()(i) for i in range(3)]
    promises = [promise for _, promise in started]
    assert promises[0] != promises[1]
    assert len(promises) == 3


def plain_expected_errors() -> None:
    instance, promise = Task()(1)
    with pytest.raises(PromiseMisuse):
        print(promise + 1)
    with pytest.raises(NotInInstance):
        Task().measure(1)
    try:
        print(promise.real)
    except PromiseMisuse as error:
        print(error)


async def plain_async_program() -> None:
    instance, promise = await Crawl()(1)
    pair = await Crawl()(2)
    assert promise != pair[1]


def waits_in_plain_code() -> int:
    instance, promise = Task()(1)
    value = resolve(instance, promise, timeout=30)
    for each in as_completed(instance, [promise], timeout=30):
        print(repr(each))
    return value + resolve(*Task()(2), timeout=30)


async def waits_async() -> int:
    instance, promise = await Crawl()(1)
    return 1 + await aresolve(instance, promise)


def plain_unknown(promises: list[DAGPromise[int]] | None = None) -> None:
    for promise in promises or []:
        print(promise.identifier)


def plain_shadowed() -> None:
    class Nodes:
        def measure(self, number: int) -> int:
            return number

    assert Nodes().measure(1) + 1 == 2
