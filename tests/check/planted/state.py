"""DAG008: state on `self`, which other nodes do not see."""

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


#: Nothing is raised: the value is the one from before.
LOST = {"Counted": 0, "SetInTuple": 0, "SetInAsync": 0}


class Counted(Nodes):
    count = 0

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.counted([self.step(i) for i in range(number)])

    @dagorama().syncfn
    def step(self, number: int) -> int:
        self.count += 1  #: DAG008
        return number

    @dagorama().syncfn
    def counted(self, numbers: list[int]) -> int:
        return self.count


class SetForOthers(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        self.factor = number  #: DAG008
        return self.scaled(2)

    @dagorama().syncfn
    def scaled(self, number: int) -> int:
        return number * self.factor


class SetInTuple(Nodes):
    low = high = 0

    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        self.low, self.high = 1, number  #: DAG008, DAG008
        return self.width()

    @dagorama().syncfn
    def width(self) -> int:
        return self.high - self.low


class SetInAsync(Nodes):
    page = 0

    @dagorama().asyncfn
    async def entrypoint(self, number: int) -> int:
        self.page = number  #: DAG008
        return await self.shown()

    @dagorama().asyncfn
    async def shown(self) -> int:
        return self.page
