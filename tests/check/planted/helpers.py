"""Promises that come from helper methods, locals and nested functions."""

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


class FromHelper(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measured(number) + 1  #: DAG002


class FromHelperOfHelper(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return sum(self.all_measured(number))  #: DAG005


class MethodThroughLocal(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        measure = self.measure
        return measure(number) - 1  #: DAG002


class SelfThroughLocal(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        this = self
        size = this.measure(number)
        return size.bit_length()  #: DAG003


class NestedFunction(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        def one(i: int) -> int:
            return self.measure(i)

        return one(number) + one(2)  #: DAG002


class MisuseInNestedFunction(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        def text(i: int) -> str:
            return f"{self.measure(i)}"  #: DAG002

        return text(number)


class MisuseInLambda(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> list[int]:
        return list(map(lambda i: self.measure(i) + 1, range(number)))  #: DAG002


class MappedMethod(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return sum(map(self.measure, range(number)))  #: DAG005


class SuperCall(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number)

    @dagorama().syncfn
    def measure(self, number: int) -> int:
        return super().measure(number) + 1  #: DAG002


class MisuseInHelper(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> bool:
        return self.is_large(number)

    def is_large(self, number: int) -> bool:
        return self.measure(number) > 100  #: DAG002


class PromiseFromTuple(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        pair = (number, self.measure(number))
        return pair[1] + 1  #: DAG002


class PromiseFromZip(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> list[str]:
        sizes = [self.measure(i) for i in range(number)]
        return [f"{i}: {size}" for i, size in zip(range(number), sizes)]  #: DAG002


class PromiseFromItems(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        sizes = {"one": self.measure(1), "two": self.measure(2)}
        for name, size in sizes.items():
            print(name, size * 2)  #: DAG002
        return number


class InTryStatement(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        try:
            return self.measure(number) + 1  #: DAG002
        finally:
            print("done")


class InContextManager(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        with open(__file__) as file:
            size = self.measure(len(file.read()))
        return size + number  #: DAG002
