"""Stories of graphs whose shape is found while they run."""

from __future__ import annotations

import asyncio

from dagorama import DAGDefinition, current, dagorama
from tests.parity.stage import Stage, awaited
from tests.parity.stories import story
from tests.testing.graphs import Steps


class Fan(DAGDefinition):
    @dagorama
    def entrypoint(self, count: int) -> int:
        return self.total([self.square(number) for number in range(count)])

    @dagorama
    def square(self, number: int) -> int:
        return number * number

    @dagorama
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


@story
def a_fan_is_gathered(stage: Stage) -> None:
    assert stage.told(*Fan()(300)) == sum(number * number for number in range(300))


@story
def an_empty_fan_is_gathered(stage: Stage) -> None:
    assert stage.told(*Fan()(0)) == 0


@story
def a_chain_runs_in_its_order(stage: Stage) -> None:
    assert stage.told(*Steps()(100)) == 100


class Fibonacci(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int) -> int:
        if number < 2:
            return number
        return self.added(self.entrypoint(number - 1), self.entrypoint(number - 2))

    @dagorama
    def added(self, left: int, right: int) -> int:
        return left + right


@story
def a_function_may_create_nodes_of_itself(stage: Stage) -> None:
    assert stage.told(*Fibonacci()(7)) == 13


class Diamond(DAGDefinition):
    @dagorama
    def entrypoint(self) -> int:
        top = self.plus(1, 0)
        return self.plus(self.plus(top, 10), self.plus(top, 100))

    @dagorama
    def plus(self, left: int, right: int) -> int:
        return left + right


@story
def a_value_is_used_by_several_nodes(stage: Stage) -> None:
    assert stage.told(*Diamond()()) == 112


class Deciding(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int) -> str:
        return self.chosen(self.plus(number))

    @dagorama
    def plus(self, number: int) -> int:
        return number + 1

    @dagorama
    def chosen(self, number: int) -> str:
        return self.even() if number % 2 == 0 else self.odd()

    @dagorama
    def even(self) -> str:
        return "even"

    @dagorama
    def odd(self) -> str:
        return "odd"


@story
def a_value_decides_which_nodes_exist(stage: Stage) -> None:
    assert stage.told(*Deciding()(1)) == "even"
    assert stage.told(*Deciding()(2)) == "odd"


class Async(DAGDefinition):
    @dagorama
    async def entrypoint(self, count: int) -> int:
        return await self.total(await asyncio.gather(*(self.number(each) for each in range(count))))

    @dagorama
    async def number(self, number: int) -> int:
        await asyncio.sleep(0)
        return self.doubled(number)

    @dagorama
    def doubled(self, number: int) -> int:
        return 2 * number

    @dagorama
    async def total(self, numbers: list[int]) -> int:
        return sum(numbers)


@story
def async_and_sync_functions_create_nodes_of_each_other(stage: Stage) -> None:
    assert stage.told(*awaited(Async()(5))) == 20


class Streaming(DAGDefinition):
    @dagorama(stream_children=True)
    def entrypoint(self, count: int) -> int:
        return self.total([self.number(each) for each in range(count)])

    @dagorama
    def number(self, number: int) -> int:
        return number

    @dagorama
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


@story
def children_of_a_streaming_function_are_gathered(stage: Stage) -> None:
    assert stage.told(*Streaming()(20)) == 190


class Greedy(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int) -> int:
        here = self.plus(number, greedy_execution=True)
        return self.plus(here if here > 0 else 0)

    @dagorama
    def plus(self, number: int) -> int:
        return number + 1


@story
def a_greedy_call_creates_no_node(stage: Stage) -> None:
    assert stage.told(*Greedy()(1)) == 3


class Helped(DAGDefinition):
    @dagorama
    def entrypoint(self, words: list[str]) -> list[str]:
        return self._each(words)

    def _each(self, words: list[str]) -> list[str]:
        return [self.upper(word) for word in words]

    @dagorama
    def upper(self, word: str) -> str:
        return word.upper()


@story
def methods_that_are_not_decorated_create_nodes_too(stage: Stage) -> None:
    assert stage.told(*Helped()(["a", "b"])) == ["A", "B"]


class Later(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int) -> int:
        return number

    @dagorama
    def plus(self, number: int) -> int:
        return number + 1


@story
def a_client_adds_nodes_to_an_instance(stage: Stage) -> None:
    instance, promise = Later()(1)
    assert stage.told(instance, instance.plus(instance.plus(promise))) == 3


class Looking(DAGDefinition):
    @dagorama
    def entrypoint(self) -> tuple[int, str, str]:
        here = current()
        return here.attempt, here.function, str(here.definition)


@story
def a_node_knows_what_it_is(stage: Stage) -> None:
    attempt, function, _ = stage.told(*Looking()())
    assert (attempt, function.rpartition(".")[2]) == (1, "entrypoint")
