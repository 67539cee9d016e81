"""The standard library's `ProcessPoolExecutor`, with two processes: no graph, and nothing of it is durable."""

from __future__ import annotations

import platform
from concurrent.futures import ProcessPoolExecutor
from typing import Self

from peers.functions import nothing, total


class Executor:
    """Each node is a call of `submit`."""

    def __enter__(self) -> Self:
        self._executor = ProcessPoolExecutor(2)
        return self

    def __exit__(self, *raised: object) -> None:
        self._executor.shutdown()

    def version(self) -> str:
        return f"Python {platform.python_version()}"

    def one(self, number: int) -> int:
        return self._executor.submit(nothing, number).result()

    def fan(self, width: int) -> int:
        futures = [self._executor.submit(nothing, number) for number in range(width)]
        return self._executor.submit(total, [future.result() for future in futures]).result()
