"""A pool on Slurm: a batch job for each worker, which leaves before the time of the job is over.

Run: python samples/pool_slurm.py
It needs a machine with Slurm's commands, and a folder that the machines of the cluster see too.

The broker runs for as long as this program. For other machines it needs tokens and TLS: see docs/how-to/pools.md.
"""

import sys
from pathlib import Path

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.pools import SlurmPool
from dagorama_broker.launch import launch_broker


class Squares(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, count: int) -> int:
        return self.total([self.square(number) for number in range(count)])

    @dagorama().syncfn
    def square(self, number: int) -> int:
        return number**2

    @dagorama().syncfn
    def total(self, squares: list[int]) -> int:
        return sum(squares)


def main() -> None:
    options = [f"--chdir={Path(__file__).parent}", *sys.argv[1:]]
    with launch_broker(port=0), SlurmPool(options, time="10:00", max=2, idle=5):
        instance, promise = Squares()(10)
        print("the sum of ten squares is", resolve(instance, promise, timeout=600))


if __name__ == "__main__":
    # Workers import the graph, so it must be in a module, and not in the program that was started.
    import pool_slurm

    pool_slurm.main()
