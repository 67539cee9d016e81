"""Stories of values: what functions are given and return."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from threading import Lock
from typing import Any

from dagorama import DAGDefinition, DAGPromise, State, dagorama, put, state
from tests.parity.stage import Failed, Stage
from tests.parity.stories import story


@dataclass
class Order:
    name: str
    prices: list[float]


class Orders(DAGDefinition):
    def __init__(self, currency: str) -> None:
        self.currency = currency

    @dagorama
    def entrypoint(self, orders: list[Order], rate: float = 1.0) -> dict[str, str]:
        return {order.name: self.text(self.total(order, rate=rate)) for order in orders}

    @dagorama
    def total(self, order: Order, *, rate: float) -> float:
        return sum(order.prices) * rate

    @dagorama
    def text(self, total: float) -> str:
        return f"{total:.2f} {self.currency}"


@story
def objects_keywords_and_the_state_of_the_constructor_reach_nodes(stage: Stage) -> None:
    orders = [Order("a", [1.0, 2.5]), Order("b", [])]
    assert stage.told(*Orders("EUR")(orders, rate=2.0)) == {"a": "7.00 EUR", "b": "0.00 EUR"}


class Nothing(DAGDefinition):
    @dagorama
    def entrypoint(self) -> None:
        return None


@story
def none_is_a_value(stage: Stage) -> None:
    instance, promise = Nothing()()
    assert stage.told(instance, promise) is None
    assert state(instance, promise) is State.COMPLETED


class Nested(DAGDefinition):
    @dagorama
    def entrypoint(self) -> dict[str, Any]:
        one = self.number(1)
        return {"list": [one, (self.number(2), {3})], "order": self.order(one)}

    @dagorama
    def number(self, number: int) -> int:
        return number

    @dagorama
    def order(self, number: int) -> Order:
        return Order(str(number), [number, number])


@story
def promises_within_values_are_resolved(stage: Stage) -> None:
    expected = {"list": [1, (2, {3})], "order": Order("1", [1, 1])}
    assert stage.told(*Nested()()) == expected


class Plain(DAGDefinition):
    def entrypoint(self, count: int) -> list[DAGPromise[int]]:
        return [self.doubled(number) for number in range(count)]  # type: ignore[misc]  # a promise is typed as its value

    @dagorama
    def doubled(self, number: int) -> int:
        return 2 * number


@story
def an_entry_point_that_is_not_decorated_returns_promises(stage: Stage) -> None:
    assert stage.told(*Plain()(3)) == [0, 2, 4]


class Shared(DAGDefinition):
    @dagorama
    def entrypoint(self) -> list[list[int]]:
        values = [1]
        found = [self.changed(values), self.changed(values)]
        values.append(9)
        return found

    @dagorama
    def changed(self, values: list[int]) -> list[int]:
        values.append(len(values))
        return values


@story
def arguments_are_copies_as_they_were_at_the_call(stage: Stage) -> None:
    assert stage.told(*Shared()()) == [[1, 1], [1, 1]]


class Large(DAGDefinition):
    @dagorama
    def entrypoint(self, data: bytes) -> list[int]:
        doubled = self.doubled(data)
        return [self.length(doubled), self.length(data)]

    @dagorama
    def doubled(self, data: bytes) -> bytes:
        return data + data

    @dagorama
    def length(self, data: bytes) -> int:
        return len(data)


@story
def large_arguments_and_values_arrive(stage: Stage) -> None:
    assert stage.told(*Large()(b"x" * 300_000)) == [600_000, 300_000]


@story
def a_value_that_was_put_is_given_to_many_nodes(stage: Stage) -> None:
    assert stage.told(*Large()(put(b"y" * 400_000))) == [800_000, 400_000]


class Counting(DAGDefinition):
    @dagorama
    def entrypoint(self, words: list[str]) -> Counter[str]:
        return self.merged([self.count(word) for word in words])

    @dagorama
    def count(self, word: str) -> Counter[str]:
        return Counter(word)

    @dagorama
    def merged(self, parts: list[Counter[str]]) -> Counter[str]:
        return sum(parts, Counter())


@story
def values_keep_their_classes(stage: Stage) -> None:
    assert type(stage.told(*Counting()(["abba", "a"]))) is Counter


class Returning(DAGDefinition):
    @dagorama
    def entrypoint(self) -> Any:
        return Lock()


@story
def a_value_that_cannot_be_pickled_fails_its_node(stage: Stage) -> None:
    found = stage.told(*Returning()())
    assert isinstance(found, Failed)
    assert "pickle" in found.message


class Passing(DAGDefinition):
    @dagorama
    def entrypoint(self) -> int:
        return self.taken(Lock())  # dagorama: ignore[DAG009]

    @dagorama
    def taken(self, lock: Any) -> int:
        return 1


@story
def an_argument_that_cannot_be_pickled_fails_the_calling_node(stage: Stage) -> None:
    found = stage.told(*Passing()())
    assert isinstance(found, Failed)
    assert found.function.endswith("Passing.entrypoint")


class Raised(DAGDefinition):
    @dagorama
    def entrypoint(self) -> Exception:
        return self.error()

    @dagorama
    def error(self) -> Exception:
        return ValueError("only a value")


@story
def an_exception_may_be_a_value(stage: Stage) -> None:
    found = stage.told(*Raised()())
    stage.record[-1] = repr(found)  # exceptions are equal only to themselves
    assert isinstance(found, ValueError)


class Billed(DAGDefinition, codec="json"):
    @dagorama
    def entrypoint(self, order: Order, rate: float = 1) -> dict[str, float | str]:
        total = self.total([order, self.discount(order)], rate)
        return {"total": total, "text": self.text(total)}

    @dagorama
    def discount(self, order: Order) -> Order:
        return Order("discount", [-price / 2 for price in order.prices])

    @dagorama(codec="pickle")
    def total(self, orders: Any, rate: Any) -> Any:
        return rate * sum(sum(order.prices) for order in orders)

    @dagorama
    def text(self, total: float) -> str:
        return f"{total:.2f}"

    @dagorama
    def rounded(self, total: float) -> int:
        return total  # type: ignore[return-value]


@story
def json_and_pickle_functions_take_each_others_values(stage: Stage) -> None:
    assert stage.told(*Billed()(Order("a", [1.0, 2.5]), rate=2)) == {"total": 3.5, "text": "3.50"}


@story
def a_result_that_does_not_fit_its_annotation_fails_its_node(stage: Stage) -> None:
    instance, promise = Billed()(Order("a", []))
    stage.told(instance, promise)
    found = stage.told(instance, instance.rounded(1.5))
    assert isinstance(found, Failed)
    assert (found.type, found.attempts) == ("dagorama.errors.TypeMismatch", 1)
