"""Findings that a comment silences."""

from dagorama import dagorama
from tests.check.planted.nodes import Nodes

#: They fail when they run; the comments say that this is on purpose.
FAILS = ["Ignored", "IgnoredByCode", "NoQa", "NoQaByCode", "OverLines"]


class Ignored(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number) + 1  # dagorama: ignore


class IgnoredByCode(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number) + 1  # to show it  # dagorama: ignore[DAG001, DAG002]


class NoQa(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number) + 1  # noqa


class NoQaByCode(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number) + 1  # noqa: E501, DAG002


class OverLines(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return (
            self.measure(number)
            + 1  # noqa: DAG002
        )
