"""Calling a definition: typed by its entry point, whatever kind that is."""

from collections import Counter
from typing import Any, Generic, TypeVar, assert_type
from uuid import UUID

from dagorama import DAGDefinition, DAGInstance, DAGPromise, dagorama, start

T = TypeVar("T")


class Decorated(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, text: str, *, times: int = 1) -> Counter[str]:
        return Counter(text * times)


class Plain(DAGDefinition):
    def entrypoint(self, text: str) -> list[str]:
        return [text]


class Later(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, text: str) -> list[int]:
        return [len(text)]


class PlainLater(DAGDefinition):
    async def entrypoint(self, text: str) -> int:
        return len(text)


class SaysNothing(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, text):  # type: ignore[no-untyped-def]
        return text


class SaysNothingLater(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self, text):  # type: ignore[no-untyped-def]
        return text


class SaysAny(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, text: str) -> Any:
        return text


class ReturnsNone(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> None: ...


class Inherits(Decorated): ...


class Holds(DAGDefinition, Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value

    @dagorama().syncfn
    def entrypoint(self) -> T:
        return self.value


def sync_calls() -> None:
    instance, promise = Decorated()("abc", times=2)
    assert_type(instance, DAGInstance)
    assert_type(promise, DAGPromise[Counter[str]])
    assert_type(Plain()("abc"), tuple[DAGInstance, DAGPromise[list[str]]])
    assert_type(SaysAny()("abc"), tuple[DAGInstance, DAGPromise[Any]])
    assert_type(ReturnsNone()(), tuple[DAGInstance, DAGPromise[None]])
    assert_type(Inherits()("abc"), tuple[DAGInstance, DAGPromise[Counter[str]]])
    assert_type(Holds(5)(), tuple[DAGInstance, DAGPromise[int]])
    instance, _ = SaysNothing()("abc")
    assert_type(instance, DAGInstance)


async def async_calls() -> None:
    instance, promise = await Later()("abc")
    assert_type(instance, DAGInstance)
    assert_type(promise, DAGPromise[list[int]])
    assert_type(await PlainLater()("abc"), tuple[DAGInstance, DAGPromise[int]])
    instance, _ = await SaysNothingLater()("abc")
    assert_type(instance, DAGInstance)


def any_definition(definition: DAGDefinition, definitions: list[DAGDefinition]) -> None:
    assert_type(definition(1, key=2), tuple[DAGInstance, DAGPromise[Any]])
    for each in definitions:
        assert_type(each(), tuple[DAGInstance, DAGPromise[Any]])


def attached(identifier: UUID) -> None:
    assert_type(Decorated.attach(identifier), tuple[DAGInstance, DAGPromise[Counter[str]]])
    assert_type(Later.attach(str(identifier)), tuple[DAGInstance, DAGPromise[list[int]]])
    assert_type(SaysAny.attach(identifier), tuple[DAGInstance, DAGPromise[Any]])
    instance, _ = SaysNothing.attach(identifier)
    assert_type(instance, DAGInstance)
    instance, _ = SaysNothingLater.attach(identifier)
    assert_type(instance, DAGInstance)


def attached_by_a_users_id() -> None:
    assert_type(Decorated.attach(id="order-42"), tuple[DAGInstance, DAGPromise[Counter[str]]])


async def started() -> None:
    start_it = start(Decorated(), id="order-42", labels={"tenant": "7"}, priority=5)
    assert_type(start_it("abc"), tuple[DAGInstance, DAGPromise[Counter[str]]])
    start_it(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    start_it()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(await start(PlainLater())("abc"), tuple[DAGInstance, DAGPromise[int]])
    assert_type(start(SaysAny())("abc"), tuple[DAGInstance, DAGPromise[Any]])


def made_by_hand(identifier: UUID) -> None:
    instance = DAGInstance(identifier, Decorated())
    assert_type(instance.instance_id, UUID)
    assert_type(instance.definition, DAGDefinition)
    assert_type(instance.entrypoint("abc"), Any)
    promise: DAGPromise[int] = DAGPromise(identifier)
    assert_type(promise.identifier, UUID)
