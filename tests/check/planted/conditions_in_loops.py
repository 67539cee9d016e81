"""DAG001 in comprehensions and loops."""

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


class ComprehensionFilter(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> list[int]:
        return [i for i in range(number) if self.measure(i)]  #: DAG001


class FilterOfPromises(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> list[int]:
        sizes = [self.measure(i) for i in range(number)]
        return [size for size in sizes if size]  #: DAG001


class IfInFor(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        sizes = []
        for i in range(number):
            sizes.append(self.measure(i))
        for size in sizes:
            if size:  #: DAG001
                return 1
        return 0


class ElifBranch(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        if number == 100:
            return 1
        elif self.measure(number):  #: DAG001
            return 2
        return 3


class BothBranches(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        if number > 1:
            size = self.measure(number)
        else:
            size = self.measure(1)
        return 1 if size else 0  #: DAG001
