"""What the type checkers see of the plain function of a decorated one, and of a call that runs here."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, assert_type

import dagorama as package
from dagorama import DAGDefinition, dagorama


class Task(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        assert_type(self.work(number, greedy_execution=True), int)
        assert_type(self.work.original_fn(self, number), int)
        assert_type(Task.work.original_fn(self, number), int)
        assert_type(Task.work(self, number), int)
        assert_type(Task.work(self, number, greedy_execution=True), int)
        assert_type(self.bare(number, greedy_execution=True), int)
        assert_type(self.todo(number, greedy_execution=False), int)
        assert_type(list(map(self.work, [1, 2])), list[int])
        callback: Callable[[int], int] = self.work
        return str(callback(number))  # dagorama: ignore[DAG002]  # only type checkers read this

    @dagorama().syncfn
    def work(self, number: int) -> int:
        return number

    @package.dagorama
    def bare(self, number: int) -> int:
        return number

    @dagorama().syncfn
    @abstractmethod
    def todo(self, number: int) -> int: ...

    @dagorama().asyncfn
    async def later(self, number: int) -> int:
        assert_type(await self.later(number, greedy_execution=True), int)
        assert_type(await self.later.original_fn(self, number), int)
        return number


class Derived(Task):
    @dagorama().syncfn
    def work(self, number: int, more: int = 1) -> bool:
        assert_type(super().work(number, greedy_execution=True), int)
        assert_type(super().work.original_fn(self, number), int)
        return bool(number + more)

    @dagorama().syncfn
    def todo(self, number: int) -> int:
        return self.work(number, more=2)


class Plain(DAGDefinition):
    def entrypoint(self, number: int) -> list[int]:
        return [number]


def in_a_unit_test(definition: Any) -> None:
    assert_type(Derived.work.original_fn(definition, 1), bool)
    assert_type(Derived().work(1, greedy_execution=True), bool)  # dagorama: ignore[DAG010]
    assert_type(Plain().entrypoint(1), list[int])
