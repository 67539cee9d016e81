"""Promises that are stored, compared with promises, passed on and returned."""

from __future__ import annotations

from typing import Any

from dagorama import DAGPromise, dagorama, outcome
from tests.check.planted.nodes import Nodes


class PassedOn(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        size = self.measure(number)
        return self.total([size, self.measure(2)])


class Stored(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> dict[str, Any]:
        sizes = {i: self.measure(i) for i in range(number)}
        sizes[9] = self.measure(9)
        sizes.update({7: self.measure(7)})
        return {"sizes": sizes, "names": (self.names(2), "plain")}


class ComparedWithPromises(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> bool:
        one, two = self.measure(1), self.measure(2)
        seen = [one]
        return one == one and one != two and two not in seen


class KeyOfDict(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        numbers = {self.measure(i): i for i in range(number)}
        unique = set(numbers)
        return len(numbers) + len(unique)


class CountedAndSliced(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        sizes = [self.measure(i) for i in range(number)]
        if sizes and len(sizes) > 2:
            sizes = sizes[1:] + [self.measure(4)]
        while len(sizes) > 1:
            sizes = [self.total(sizes[:2]), *sizes[2:]]
        return sizes[0]


class Represented(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        size = self.measure(number)
        print(f"{size!r} {size!a} {size=}", repr(size), "%r" % size, "{!r}".format(size))
        print([size], {"size": size})
        return size


class OwnAttributes(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        size: Any = self.measure(number)
        print(size.identifier, size.function_name, size.arguments)
        return f"{size.identifier} {size.instance_id}"


class TypeIsAsked(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        size: Any = self.measure(number)
        if isinstance(size, DAGPromise):
            return size
        return size + 1


class NoneIsAsked(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        best = None
        for i in range(number):
            size = self.measure(i)
            if best is None:
                best = size
        return self.thing(best)


class Outcomes(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> Any:
        return self.thing([outcome(self.measure(i)) for i in range(number)])


class SortedByNumber(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> Any:
        pairs = [(i, self.measure(i)) for i in range(number)]
        pairs.sort(key=lambda pair: -pair[0])
        best, _ = max(pairs, key=lambda pair: pair[0])
        return [size for _, size in sorted(pairs, key=lambda pair: pair[0])] + [best]
