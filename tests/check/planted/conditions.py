"""DAG001: a promise decides."""

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


class IfStatement(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        size = self.measure(number)
        if size:  #: DAG001
            return "large"
        return "small"


class WhileLoop(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        left = self.measure(number)
        while left:  #: DAG001
            left = self.measure(number)
        return number


class AndChain(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number) and self.measure(2)  #: DAG001


class OrChain(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number) or 7  #: DAG001


class NotOperator(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> bool:
        empty = not self.names(number)  #: DAG001
        return empty


class Ternary(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        return "yes" if self.measure(number) else "no"  #: DAG001


class Assertion(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        size = self.measure(number)
        assert size  #: DAG001
        return size


class Walrus(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        if size := self.measure(number):  #: DAG001
            return size
        return 0


class BoolCall(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> bool:
        return bool(self.measure(number))  #: DAG001
