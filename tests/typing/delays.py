"""Delayed calls are typed as the calls themselves."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, assert_type

from dagorama import DAGDefinition, DAGInstance, DAGPromise, at, dagorama, later, start


class Task(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int, *, word: str = "") -> list[str]:
        text = later(self.work, 60)(number, times=2)
        assert_type(text, str)
        later(self.work, 60)("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        later(self.work, "60")(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        return [text, at(self.bare, datetime.now())(number)]

    @dagorama().syncfn
    def work(self, number: int, *, times: int = 1) -> str:
        return str(number) * times

    @dagorama
    def bare(self, number: int) -> str:
        return str(number)


class AsyncTask(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        found = await later(self.work, 0.5)(number)
        assert_type(found, int)
        return await at(self.work, datetime.now())(found)

    @dagorama().asyncfn
    async def work(self, number: int) -> int:
        return number


class SaysAny(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, text: str) -> Any:
        return text


async def instances(when: datetime) -> None:
    started = later(Task(), 60)
    assert_type(started(1, word="a"), tuple[DAGInstance, DAGPromise[list[str]]])
    instance, _ = started(1)
    assert_type(later(instance.work, 5)(1), Any)
    started("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(at(start(Task(), id="a"), when)(1), tuple[DAGInstance, DAGPromise[list[str]]])
    assert_type(await later(AsyncTask(), 60)(1), tuple[DAGInstance, DAGPromise[int]])
    assert_type(at(SaysAny(), when)("a"), tuple[DAGInstance, DAGPromise[Any]])
    given: Callable[[int], str] = later(Task(), 60)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    at(Task(), 5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    print(given)
