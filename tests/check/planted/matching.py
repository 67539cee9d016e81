"""DAG001: match statements compare with a promise."""

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


class MatchOfLiterals(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        match self.measure(number):  #: DAG001
            case 0:
                return "none"
            case 1 | 2:
                return "few"
            case _:
                return "many"


class MatchOfTuple(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        match (self.measure(number), number):  #: DAG001
            case (6, 3):
                return "as expected"
            case _:
                return "otherwise"
