"""Definitions that the dashboards of tests show. Workers import this module: it imports little."""

from __future__ import annotations

from dagorama import DAGDefinition, dagorama

#: Text that would run in a page that does not escape it.
HOSTILE = "<img src=x onerror=alert(1)>"
#: A label whose name and value have quotes.
QUOTED = {'the "name"': '"value" of "it"'}


class Shapes(DAGDefinition):
    """Fails for one number, prints, and joins."""

    @dagorama().syncfn
    def entrypoint(self, count: int, bad: int) -> int:
        return self.total([self.measure(number, number == bad, HOSTILE) for number in range(count)])

    @dagorama(codec="json").syncfn
    def measure(self, number: int, is_bad: bool, label: str) -> int:
        print(f"measuring {number} {HOSTILE}\x1b[31m")
        if is_bad:
            raise ValueError(f"no area of {HOSTILE}")
        return number * number

    @dagorama().syncfn
    def total(self, areas: list[int]) -> int:
        return sum(areas)


class Lonely(DAGDefinition):
    """Runs nowhere, because no worker tolerates its taint."""

    @dagorama(queue_name=f"queue {HOSTILE}", taint_name="gpu", codec="json").syncfn
    def entrypoint(self, number: int = 0) -> int:
        return number


class Turned(DAGDefinition):
    """Runs nowhere; the name of its queue turns the direction of writing and does not turn it back."""

    @dagorama(queue_name="left \u202eright", taint_name="turned").syncfn
    def entrypoint(self) -> int:
        return 0


#: A module in two versions, whose function has other code in each.
DEPLOYED_BEFORE = """
from dagorama import DAGDefinition, dagorama


class Deployed(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        return 1
"""
DEPLOYED_NOW = DEPLOYED_BEFORE.replace("return 1", "return 2")
