"""DAG002: operators on a promise."""

from dagorama import dagorama

from .nodes import Nodes as Base


class Addition(Base):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number) + 1  #: DAG002


class ReflectedAddition(Base):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        one = self.measure(number)
        return 1 + one  #: DAG002


class TwoPromises(Base):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        one, two = self.measure(number), self.measure(2)
        return one * two  #: DAG002


class Negative(Base):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return -self.measure(number)  #: DAG002


class AugmentedTarget(Base):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        size = self.measure(number)
        size += 1  #: DAG002
        return size


class AugmentedValue(Base):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        total = 0
        for i in range(number):
            total += self.measure(i)  #: DAG002
        return total


class PowerOfParameter(Base):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return number ** self.measure(number)  #: DAG002


class ListPlusPromise(Base):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> list[str]:
        return ["first"] + self.names(number)  #: DAG002
