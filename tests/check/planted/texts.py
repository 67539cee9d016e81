"""DAG002: the text and the length of a promise."""

import dagorama as dg
from tests.check.planted.nodes import Nodes


class FString(Nodes):
    @dg.dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        return f"size: {self.measure(number)}"  #: DAG002


class FStringWithFormat(Nodes):
    @dg.dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        size = self.measure(number)
        return f"{number} has {size:>5}"  #: DAG002


class FStringWidth(Nodes):
    @dg.dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        width = self.measure(number)
        return f"{number:{width}}"  #: DAG002


class FormatMethod(Nodes):
    @dg.dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        return "{} is {}".format(number, self.measure(number))  #: DAG002


class FormatKeyword(Nodes):
    @dg.dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        return "{size}".format(size=self.measure(number))  #: DAG002


class PercentFormat(Nodes):
    @dg.dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        return "%s is %d" % (number, self.measure(number))  #: DAG002


class StrCall(Nodes):
    @dg.dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        return str(self.measure(number))  #: DAG002


class Length(Nodes):
    @dg.dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return len(self.names(number))  #: DAG002


class FormatBuiltin(Nodes):
    @dg.dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        return format(self.measure(number), ">10")  #: DAG002
