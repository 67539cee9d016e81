"""Start a definition, and what its nodes do: write a note, or never end."""

from __future__ import annotations

import asyncio
import threading
from inspect import iscoroutine
from typing import Any

from dagorama import DAGDefinition, DAGInstance


def note(path: str, text: str) -> None:
    """Append a line to a file."""
    with open(path, "a") as file:
        file.write(f"{text}\n")


def forever() -> None:
    """Wait without an end."""
    threading.Event().wait()


def start(definition: DAGDefinition, *args: Any) -> tuple[DAGInstance, Any]:
    """Start a definition, whether its entry point is async or not."""
    started = definition(*args)
    return asyncio.run(started) if iscoroutine(started) else started
