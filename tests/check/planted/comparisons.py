"""DAG002: comparisons with a promise."""

from dagorama import dagorama
from tests.check.planted import nodes


class EqualsConstant(nodes.Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> bool:
        return self.measure(number) == 6  #: DAG002


class NotEqualToParameter(nodes.Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> bool:
        return self.measure(2) != number  #: DAG002


class LessThan(nodes.Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> bool:
        low, high = self.measure(number), self.measure(9)
        return low < high  #: DAG002


class ChainedComparison(nodes.Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> bool:
        return 0 < self.measure(number) < 10  #: DAG002


class EqualsNone(nodes.Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        found = self.thing(number)
        if found == None:  #: DAG002
            return "nothing"
        return found


class InPromise(nodes.Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> bool:
        return "name 1" in self.names(number)  #: DAG002


class PromiseInConstants(nodes.Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> bool:
        return self.measure(number) in (1, 2, 3)  #: DAG002


class InComprehensionFilter(nodes.Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> list[int]:
        return [i for i in range(number) if self.measure(i) > 2]  #: DAG002
