"""An order is priced, waits for the approval of a person, and is shipped.

Run: python samples/approval.py

The script starts a broker and a worker, submits two orders, and approves them itself, from a thread that stands for
the people: `send` is what `dagorama send`, a webhook or the form on the dashboard do. While an order waits it holds no
worker: the only worker here prices the second order meanwhile. The second order gets no answer, and takes the default.
"""

import threading
from dataclasses import dataclass

from dagorama import DAGDefinition, DAGInstance, State, dagorama, launch_workers, resolve, send, start, state, wait_for
from dagorama_broker.launch import launch_broker

PRICES = {"chair": 49.0, "table": 180.0}


@dataclass
class Decision:
    yes: bool
    note: str = ""


class Order(DAGDefinition):
    @dagorama
    def entrypoint(self, item: str, count: int, patience: float) -> str:
        quote = self.price(item, count)
        decision = wait_for("approval", Decision, timeout=patience, default=Decision(False, "no decision was made"))
        return self.ship(item, quote, decision)

    @dagorama
    def price(self, item: str, count: int) -> float:
        return PRICES[item] * count

    @dagorama
    def ship(self, item: str, quote: float, decision: Decision) -> str:
        if not decision.yes:
            return f"{item}: not shipped, {decision.note}"
        return f"{item}: shipped for {quote:.2f}, {decision.note}"


def approve(instance: DAGInstance) -> None:
    """Decide as a person does; the key makes a second click harmless."""
    for _ in range(2):
        send(instance, "approval", Decision(yes=True, note="approved by Ada"), key="Ada's mail of Monday")


def main() -> None:
    with launch_broker(port=0), launch_workers(1):
        chairs, shipped = start(Order(), id="order-1")("chair", 4, 3 * 86_400.0)
        table, refused = start(Order(), id="order-2")("table", 1, 0.5)
        print(resolve(table, refused, timeout=30))
        assert state(chairs, shipped) is not State.COMPLETED

        person = threading.Thread(target=approve, args=(chairs,))
        person.start()
        print(resolve(chairs, shipped, timeout=30))
        person.join()


if __name__ == "__main__":
    main()
