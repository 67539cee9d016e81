"""A node that runs for as long as a test wants."""

from __future__ import annotations

import os
from pathlib import Path


class Fifo:
    """A node that reads it runs until `wait_until_read` and `let_go` are called."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._descriptor = -1

    def wait_until_read(self) -> None:
        """Opening blocks until the node has opened it: then it runs."""
        self._descriptor = os.open(self.path, os.O_WRONLY)

    def let_go(self, text: str = "let go") -> None:
        os.write(self._descriptor, text.encode())
        os.close(self._descriptor)
