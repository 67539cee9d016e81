"""Nodes for the workers of pools."""

import os
from pathlib import Path

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition


class Tasks(DAGDefinition):
    def entrypoint(self, count: int) -> list[int]:
        return self.gather([self.pid(number) for number in range(count)])

    @dagorama().syncfn
    def pid(self, number: int) -> int:
        return os.getpid()

    @dagorama().syncfn
    def gather(self, pids: list[int]) -> list[int]:
        return pids


class OnGpu(DAGDefinition):
    @dagorama(taint_name="GPU").syncfn
    def entrypoint(self) -> dict[str, str]:
        return dict(os.environ)


class Waiting(DAGDefinition):
    """A node that writes its process ID to a file, and runs until it reads from a pipe."""

    @dagorama().syncfn
    def entrypoint(self, started: str, fifo: str) -> str:
        with open(started, "a") as file:
            file.write(f"{os.getpid()}\n")
        return Path(fifo).read_text()
