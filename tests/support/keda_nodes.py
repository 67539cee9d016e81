"""Nodes of pools that are scaled: they run until others run next to them, or until they are let go."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dagorama import DAGDefinition, dagorama

#: Seconds after which a node gives up, so that a test that has failed ends.
PATIENCE = 60.0


def await_files(*files: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not all(file.exists() for file in files):
        if time.monotonic() > until:
            raise TimeoutError(f"{files} are not there")
        time.sleep(0.01)


class Meeting(DAGDefinition):
    """Nodes that end only when all of them run at the same time; the first one runs until it is let go."""

    @dagorama().syncfn
    def entrypoint(self, folder: str, count: int) -> list[int]:
        return self.gather([self.meet(folder, number, count) for number in range(count)])

    @dagorama().syncfn
    def meet(self, folder: str, number: int, count: int) -> int:
        (Path(folder) / f"{number}.part").write_text(f"{os.getpid()}")
        (Path(folder) / f"{number}.part").rename(Path(folder) / f"{number}")
        await_files(*[Path(folder) / f"{other}" for other in range(count)])
        if not number:
            await_files(Path(folder) / "let go")
        return number

    @dagorama().syncfn
    def gather(self, numbers: list[int]) -> list[int]:
        return numbers


class Training(DAGDefinition):
    """Nodes for a GPU that end only when all of them run at the same time."""

    @dagorama(taint_name="GPU").syncfn
    def entrypoint(self, folder: str, count: int) -> list[int]:
        return self.gather([self.train(folder, number, count) for number in range(count)])

    @dagorama(taint_name="GPU").syncfn
    def train(self, folder: str, number: int, count: int) -> int:
        (Path(folder) / f"{number}").touch()
        await_files(*[Path(folder) / f"{other}" for other in range(count)])
        return number

    @dagorama(taint_name="GPU").syncfn
    def gather(self, numbers: list[int]) -> list[int]:
        return numbers
