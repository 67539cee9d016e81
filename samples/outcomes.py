"""One bad item does not lose a fan-out: `outcome` gives a function the values, and a Failure for each missing one.

Run: python samples/outcomes.py

Without `outcome`, a price that cannot be read fails all that needs it (`failure.py`). With it the failure stops at the
function that asked: it sees `float | Failure`, as the type checker does, and decides. A caller can ask the same way:
`as_completed` gives promises as their nodes end, and `resolve(instance, outcome(promise))` never raises NodeFailed.
"""

from dagorama import DAGPromise, Failure, as_completed, outcome
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker

ORDERS = ["2 x 9.90", "3 x free", "1 x 5.00", "some x 3.50"]


class Report(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, orders: list[str]) -> list[str]:
        return self.lines(orders, [outcome(self.price(order)) for order in orders])

    @dagorama().syncfn
    def price(self, order: str) -> float:
        amount, _, unit_price = order.partition(" x ")
        return int(amount) * float(unit_price)

    @dagorama().syncfn
    def lines(self, orders: list[str], prices: list[float | Failure]) -> list[str]:
        known = [price for price in prices if not isinstance(price, Failure)]
        lines = [f"{len(known)} of {len(orders)} orders, {sum(known):.2f} in all"]
        for order, price in zip(orders, prices, strict=True):
            if isinstance(price, Failure):
                lines.append(f"not in it: {order} ({price.message})")
        return lines


def main() -> None:
    with launch_broker(port=0), launch_workers(2):
        instance, promise = Report()(ORDERS)
        report = resolve(instance, promise, timeout=30)

        prices: dict[DAGPromise[float], str] = {instance.price(order): order for order in ORDERS}
        for promise_of_price in as_completed(instance, prices, timeout=30):
            price = resolve(instance, outcome(promise_of_price), timeout=0)
            print(f"{prices[promise_of_price]}: {price}")

    print()
    print("\n".join(report))
    assert report[0] == "2 of 4 orders, 24.80 in all"
    assert len(report) == 3


if __name__ == "__main__":
    main()
