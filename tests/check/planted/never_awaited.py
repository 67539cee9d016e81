"""DAG006: a coroutine that is dropped or returned, so that its node is never created."""

from collections.abc import Coroutine
from typing import Any

from dagorama import dagorama
from tests.check.planted.nodes import Nodes

#: Nothing is raised: what they would have created is missing.
LOST = {"Dropped": 3, "DroppedInLoop": 3, "AlwaysTrue": 3}


class Dropped(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        self.fetch(number)  #: DAG006
        return number


class DroppedInLoop(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        for i in range(number):
            self.fetch(i)  #: DAG006
        return number


class AlwaysTrue(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        if self.fetch(0):  #: DAG006
            return number
        return 0


class Returned(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> Coroutine[Any, Any, int]:
        return self.fetch(number)  #: DAG006


class ReturnedInList(Nodes):
    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> list[Coroutine[Any, Any, int]]:
        return [self.fetch(i) for i in range(number)]  #: DAG006
