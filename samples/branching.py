"""A value that is known only at run time decides which part of the graph comes into being.

Run: python samples/branching.py

Inside a node every argument is a plain value, so an ordinary `if` may look at it. Here a curve is integrated: if
a coarse estimate and a finer one agree, the piece is done; if they do not, the node splits it in two, and the graph
grows there, and only there. Its shape was unknown when it was submitted.
"""

from math import sqrt

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker

Area = tuple[float, int]  # the area, and how many pieces it took


def simpson(start: float, end: float) -> float:
    middle = (start + end) / 2
    return (end - start) / 6 * (sqrt(start) + 4 * sqrt(middle) + sqrt(end))


class Integrate(DAGDefinition):
    """The area under the square root: flat to the right, steep near zero."""

    @dagorama().syncfn
    def entrypoint(self, start: float, end: float) -> Area:
        return self.area(start, end, 1e-5)

    @dagorama().syncfn
    def area(self, start: float, end: float, tolerance: float) -> Area:
        middle = (start + end) / 2
        fine = simpson(start, middle) + simpson(middle, end)
        if abs(fine - simpson(start, end)) < tolerance:
            return fine, 1
        return self.add(
            self.area(start, middle, tolerance / 2),
            self.area(middle, end, tolerance / 2),
        )

    @dagorama().syncfn
    def add(self, left: Area, right: Area) -> Area:
        return left[0] + right[0], left[1] + right[1]


def main() -> None:
    with launch_broker(port=0), launch_workers(2):
        steep, many = resolve(*Integrate()(0.0, 1.0), timeout=30)
        flat, few = resolve(*Integrate()(4.0, 5.0), timeout=30)

    print(f"From 0 to 1: {steep:.4f} in {many} pieces")
    print(f"From 4 to 5: {flat:.4f} in {few} piece")
    assert abs(steep - 2 / 3) < 1e-4
    assert abs(flat - 2 / 3 * (5**1.5 - 8)) < 1e-4
    assert few == 1 < many


if __name__ == "__main__":
    main()
