"""A script whose classes no other process can import, with annotations that are texts."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run

PROGRAM = """
from __future__ import annotations

from dataclasses import dataclass

from dagorama import DAGDefinition, dagorama, launch_workers, resolve
from dagorama_broker.launch import launch_broker


@dataclass
class Item:
    name: str
    price: float


@dataclass
class Order:
    items: list[Item]


class Shop(DAGDefinition, codec="json"):
    @dagorama
    def entrypoint(self, count: int) -> float:
        return self.total(Order([self.item(number) for number in range(count)]))

    @dagorama
    def item(self, number: int) -> Item:
        return Item(f"no. {number}", number)

    @dagorama
    def total(self, order: Order) -> float:
        return sum(item.price for item in order.items)


if __name__ == "__main__":
    with launch_broker(port=0):
        instance, promise = Shop()(4)
        item = instance.item(7)
        with launch_workers(2):
            print(resolve(instance, promise, timeout=60), resolve(instance, item, timeout=60))
"""


def test_records_of_a_script_reach_its_workers_as_json(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "6.0 Item(name='no. 7', price=7.0)\n", done.stderr
