"""Arguments that travel, although their names may sound otherwise."""

from __future__ import annotations

import threading
from typing import Any

from dagorama import dagorama
from tests.check.planted.nodes import Nodes

LOCK = threading.Lock()


def double(number: int) -> int:
    return 2 * number


class FunctionArgument(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> Any:
        return self.apply(double, number)

    @dagorama().syncfn
    def apply(self, function: Any, number: int) -> int:
        with LOCK:
            return function(number)


class ListOfGenerator(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        with LOCK:
            return self.total([i for i in range(number)])


class RangeArgument(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.total(range(number))


class LambdaHere(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        numbers = sorted(range(number), key=lambda i: -i)
        return self.total(numbers)


class LambdaArgument(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.called(lambda: number)

    @dagorama().syncfn
    def called(self, function: Any) -> int:
        return function()


class LocalClassArgument(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        class Local:
            pass

        return self.shown(Local())

    @dagorama().syncfn
    def shown(self, local: Any) -> str:
        return type(local).__name__


class TextFileArgument(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        with open(__file__) as file:
            return self.thing(len(file.read()))
