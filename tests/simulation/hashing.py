"""One seed is one schedule in every process."""

from __future__ import annotations

import os
import sys


def fix(module: str) -> None:
    """Start this program again where sets of IDs would come in an order of this process alone."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})
