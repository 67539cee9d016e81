"""A codec, of a method or of a class, changes no types."""

from dataclasses import dataclass
from typing import assert_type

from dagorama import DAGDefinition, DAGInstance, DAGPromise, dagorama


@dataclass
class Order:
    prices: list[float]


class Bill(DAGDefinition, codec="json"):
    @dagorama
    def entrypoint(self, order: Order) -> str:
        assert_type(self.total(order), float)
        self.total("1")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        return self.text(self.total(order))

    @dagorama(codec="json").syncfn
    def total(self, order: Order) -> float:
        return sum(order.prices)

    @dagorama(codec="pickle").syncfn
    def text(self, total: float) -> str:
        return f"{total:.2f}"

    @dagorama(codec="json").asyncfn
    async def later(self, total: float) -> str:
        return f"{total:.2f}"


class Inherited(Bill):
    pass


class Plain(DAGDefinition, codec="pickle"):
    def entrypoint(self, number: int) -> int:
        return number


def calling() -> None:
    assert_type(Bill()(Order([])), tuple[DAGInstance, DAGPromise[str]])
    assert_type(Inherited()(Order([])), tuple[DAGInstance, DAGPromise[str]])
    Bill()("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


class Wrong(DAGDefinition, codec="yaml"):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pass


dagorama(codec="yaml")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
