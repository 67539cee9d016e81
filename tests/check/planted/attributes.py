"""DAG003: attributes, items, calls and contexts of a promise."""

from dagorama import dagorama as node
from tests.check.planted.nodes import Nodes


class Attribute(Nodes):
    @node().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number).real  #: DAG003


class MethodOfValue(Nodes):
    @node().syncfn
    def entrypoint(self, number: int) -> list[str]:
        found = self.names(number)
        found.append("last")  #: DAG003
        return found


class Item(Nodes):
    @node().syncfn
    def entrypoint(self, number: int) -> str:
        return self.names(number)[0]  #: DAG003


class KeyOfRecord(Nodes):
    @node().syncfn
    def entrypoint(self, number: int) -> int:
        record = self.record(number)
        return self.measure(record["number"])  #: DAG003


class SliceOfNames(Nodes):
    @node().syncfn
    def entrypoint(self, number: int) -> list[str]:
        return self.names(number)[1:]  #: DAG003


class SetItem(Nodes):
    @node().syncfn
    def entrypoint(self, number: int) -> dict[str, int]:
        record = self.record(number)
        record["more"] = 1  #: DAG003
        return record


class DeleteItem(Nodes):
    @node().syncfn
    def entrypoint(self, number: int) -> dict[str, int]:
        record = self.record(number)
        del record["number"]  #: DAG003
        return record


class SetAttribute(Nodes):
    @node().syncfn
    def entrypoint(self, number: int) -> int:
        found = self.thing(number)
        found.color = "red"  #: DAG003
        return number


class CallOfValue(Nodes):
    @node().syncfn
    def entrypoint(self, number: int) -> int:
        function = self.thing(number)
        return function(1)  #: DAG003


class WithStatement(Nodes):
    @node().syncfn
    def entrypoint(self, number: int) -> int:
        with self.thing(number) as file:  #: DAG003
            return file


class AttributeInComprehension(Nodes):
    @node().syncfn
    def entrypoint(self, number: int) -> list[str]:
        things = [self.thing(i) for i in range(number)]
        return [thing.name for thing in things]  #: DAG003


class ItemOfDict(Nodes):
    @node().syncfn
    def entrypoint(self, number: int) -> int:
        records = {i: self.record(i) for i in range(number)}
        return records[1]["number"]  #: DAG003
