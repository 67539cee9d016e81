"""DAG004: a promise is iterated or unpacked."""

import dagorama
from tests.check.planted.nodes import Nodes

sync = dagorama.dagorama().syncfn


class ForLoop(Nodes):
    @sync
    def entrypoint(self, number: int) -> int:
        for name in self.names(number):  #: DAG004
            print(name)
        return number


class ComprehensionSource(Nodes):
    @sync
    def entrypoint(self, number: int) -> list[int]:
        names = self.names(number)
        return [self.measure(len(name)) for name in names]  #: DAG004


class InnerComprehension(Nodes):
    @sync
    def entrypoint(self, number: int) -> list[str]:
        return [name for i in range(number) for name in self.names(i)]  #: DAG004


class GeneratorSource(Nodes):
    @sync
    def entrypoint(self, number: int) -> int:
        return self.total(list(name for name in self.names(number)))  #: DAG004


class Unpacking(Nodes):
    @sync
    def entrypoint(self, number: int) -> str:
        first, second = self.names(number)  #: DAG004
        return first


class StarArgument(Nodes):
    @sync
    def entrypoint(self, number: int) -> int:
        numbers = self.thing(number)
        return self.measure(*numbers)  #: DAG004


class StarInList(Nodes):
    @sync
    def entrypoint(self, number: int) -> list[str]:
        return ["first", *self.names(number)]  #: DAG004


class DoubleStar(Nodes):
    @sync
    def entrypoint(self, number: int) -> dict[str, int]:
        return {"more": 1, **self.record(number)}  #: DAG004


class KeywordArguments(Nodes):
    @sync
    def entrypoint(self, number: int) -> int:
        arguments = self.record(number)
        return self.measure(**arguments)  #: DAG004


class NestedTarget(Nodes):
    @sync
    def entrypoint(self, number: int) -> int:
        for i, (name, size) in enumerate([self.thing(1), self.thing(2)]):  #: DAG004
            print(i, name, size)
        return number


class StarTarget(Nodes):
    @sync
    def entrypoint(self, number: int) -> str:
        first, *rest = self.names(number)  #: DAG004
        return first
