"""DAG005: a promise is handed to a function of this module that needs the value."""

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


def doubled(size: int) -> int:
    return size + size


def shown(name: str, size: int) -> str:
    text = f"{name}: {size}"
    return text


class HandedOver(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return doubled(self.measure(number))  #: DAG005


class HandedByKeyword(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        size = self.measure(number)
        return shown("size", size=size)  #: DAG005


class HandedToHelper(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.half(self.measure(number))  #: DAG005

    def half(self, size: int) -> int:
        return size // 2


class HandedToNested(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        def longest(names: list[str]) -> int:
            return max(len(name) for name in names)

        return longest(self.names(number))  #: DAG005


class HandedToLambda(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        triple = lambda size: size * 3
        return triple(self.measure(number))  #: DAG005
