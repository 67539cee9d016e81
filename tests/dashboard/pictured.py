"""The instances on the pictures of the dashboard.

Half of the invoices are written. The others wait in the `open` of a pipe that nothing is written to, so that all slots
are busy when the pictures are taken.
"""

from __future__ import annotations

import logging
import time

from dagorama import DAGDefinition, dagorama, report

log = logging.getLogger("invoices")
log.setLevel(logging.INFO)

#: Nodes of the large instance: a batch for each hundred invoices, and three more.
INVOICES, BATCH = 19_800, 100


class Invoices(DAGDefinition):
    """Writes invoices and sends them in batches."""

    @dagorama().syncfn
    def entrypoint(self, month: str, pipe: str) -> int:
        customers = self.customers(month)
        sent = [self.send(customers, first, pipe) for first in range(0, INVOICES, BATCH)]
        return self.summary(sent)

    @dagorama().syncfn
    def customers(self, month: str) -> int:
        return INVOICES

    @dagorama().syncfn
    def send(self, customers: int, first: int, pipe: str) -> int:
        return self.deliver([self.write(number, pipe) for number in range(first, min(first + BATCH, customers))])

    @dagorama().syncfn
    def write(self, number: int, pipe: str) -> int:
        time.sleep(0.001 * (1 + number % 7))  # as if it did something
        if number % 1_237 == 400:
            log.info("invoice %d has 3 positions, tax 19 %%", number)
            log.warning("no answer for 2 s, once more")
            raise ConnectionError(f"the printer of invoice {number} does not answer")
        if number > INVOICES // 2:
            report("waits for paper", number / INVOICES)
            with open(pipe) as paper:
                paper.read()
        return number

    @dagorama().syncfn
    def deliver(self, invoices: list[int]) -> int:
        return len(invoices)

    @dagorama().syncfn
    def summary(self, sent: list[int]) -> int:
        return sum(sent)


class Thumbnails(DAGDefinition):
    """Makes a few images smaller."""

    @dagorama().syncfn
    def entrypoint(self, count: int) -> int:
        return self.album([self.shrink(number) for number in range(count)])

    @dagorama().syncfn
    def shrink(self, number: int) -> int:
        time.sleep(0.001 * (number % 5))  # as if it did something
        return number

    @dagorama().syncfn
    def album(self, images: list[int]) -> int:
        return len(images)
