"""A definition in a file that never names the library: its base class does."""

from tests.check.planted.nodes import Nodes


class Unnamed(Nodes):
    def in_the_middle(self, number: int) -> int:
        return self.measure(number)

    def entrypoint(self, number: int) -> int:
        return self.measure(number) + 1  #: DAG002
