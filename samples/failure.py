"""A caller sees whose failure it is when a function raises, how often it ran, and the traceback of the worker.

Run: python samples/failure.py

The caller waits for the report. The report needs a total, the total needs prices, and one price cannot be read: so
nothing that depends on it runs, and `resolve` raises NodeFailed with the name of the failed function. The text of the
error is for people; `function`, `attempts`, `traceback`, `earlier` and `__cause__` are for programs.
"""

from dagorama import NodeFailed
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.retry import StaticRetry
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker


class Report(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, orders: list[str]) -> str:
        return self.total([self.price(order) for order in orders])

    @dagorama(retry=StaticRetry(max_attempts=2, interval=0.1)).syncfn
    def price(self, order: str) -> float:
        amount, _, unit_price = order.partition(" x ")
        return int(amount) * float(unit_price)

    @dagorama().syncfn
    def total(self, prices: list[float]) -> str:
        return f"{sum(prices):.2f}"


def failure_of(orders: list[str]) -> NodeFailed:
    try:
        resolve(*Report()(orders), timeout=30)
    except NodeFailed as failure:
        return failure
    raise AssertionError("an order without a price was priced")


def main() -> None:
    with launch_broker(port=0), launch_workers(2):
        failure = failure_of(["2 x 9.90", "3 x free", "1 x 5.00"])

    print(failure)
    print()
    print(f"function: {failure.function}, attempts: {failure.attempts}, cause: {failure.__cause__!r}")
    assert failure.function.endswith("Report.price")
    assert failure.attempts == 2
    assert "return int(amount) * float(unit_price)" in failure.traceback
    assert isinstance(failure.__cause__, ValueError)


if __name__ == "__main__":
    main()
