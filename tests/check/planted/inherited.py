"""A definition whose base class imports dagorama, and which does so only for the decorator."""

from dagorama import dagorama
from tests.check.planted.helpers import FromHelper
from tests.check.planted.middle import Middle


class Lower(FromHelper):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.measure(number) + 1  #: DAG002


class ThroughMiddle(Middle):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.in_the_middle(number) + self.measure(number)  #: DAG002
