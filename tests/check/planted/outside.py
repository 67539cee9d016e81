"""DAG010: decorated functions called without an instance."""

from dagorama import DAGDefinition, dagorama
from tests.check.planted.nodes import Nodes


class Complete(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number)


def plain_on_definition() -> None:
    Complete().measure(1)  #: DAG010


def plain_through_local() -> None:
    shapes = Complete()
    shapes.measure(1)  #: DAG010


def plain_entry_point() -> None:
    Complete().entrypoint(1)  #: DAG010


def plain_on_class() -> None:
    Complete.measure(1)  #: DAG010


def plain_async() -> None:
    Complete().fetch(1)  #: DAG010


def plain_in_comprehension() -> None:
    task = Complete()
    [task.measure(i) for i in range(3)]  #: DAG010


@dagorama().syncfn
def loose(number: int) -> int:
    return number


def plain_function() -> None:
    loose(1)  #: DAG010


class InConstructor(DAGDefinition):
    def __init__(self) -> None:
        self.size = self.measure(1)  #: DAG010

    def entrypoint(self, number: int) -> int:
        return number

    @dagorama().syncfn
    def measure(self, number: int) -> int:
        return number


def plain_constructor() -> None:
    InConstructor()


class OnDefinitionInNode(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return Complete().measure(number)  #: DAG010
