"""What a worker says of itself: how it starts, its way to the broker, what it cannot run, and what it leaves behind.

The rule: nothing here is said for each node.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from contextlib import suppress

from dagorama.api import broker_pb2 as pb
from dagorama.client.explain import obstacle
from dagorama.logging import get_logger
from dagorama.settings import WorkerOptions

#: definitions that the first line names
NAMED = 20
#: different reasons for giving something back that are kept, so that none is said twice
KEPT = 1_000

#: why nodes are given back with which something is wrong here
_WHY: dict[pb.ReturnReason.ValueType, str] = {
    pb.NOT_IMPORTABLE: "the function is not found here",
    pb.CODE_MISMATCH: "the code here is another",
    pb.UNREGISTERED: "the definition is not registered here",
    pb.UNCHECKABLE: "a signature cannot be checked here",
}


class Notices:
    """`is_command`: a person has started it and looks at its stderr."""

    def __init__(self, *, is_command: bool = False) -> None:
        self._is_command = is_command
        self._connected_before = False
        self._given_back: set[tuple[str, str]] = set()

    def started(self, options: WorkerOptions, definitions: Iterable[str]) -> None:
        self._announce(f"process {os.getpid()} runs {described(options)}")
        names = list(definitions)
        if len(names) > NAMED:
            names[NAMED:] = [f"{len(names) - NAMED} more"]
        known = f"definitions: {', '.join(names)}" if names else "no definitions are imported yet"
        others = "others are refused" if options.only_imported else f"others are imported as needed, from {os.getcwd()}"
        self._announce(f"{known}; {others}")

    def connected(self, address: str) -> None:
        self._announce(f"connected to the broker at {address}{' again' if self._connected_before else ''}")
        self._connected_before = True

    def lost(self, address: str, why: str) -> None:
        get_logger().warning("the broker at %s is gone (%s); trying again", address, why)

    def gave_back(self, returned: pb.Return) -> None:
        """Say it once for each function and reason."""
        why = _WHY.get(returned.reason)
        if why is None or (returned.function, why) in self._given_back:
            return
        if len(self._given_back) >= KEPT:
            self._given_back.clear()
        self._given_back.add((returned.function, why))
        detail = " ".join(returned.detail.split())
        get_logger().warning("gives back nodes of %s: %s: %s", returned.function, why, detail)

    def _announce(self, text: str) -> None:
        log = get_logger()
        if self._is_command and log.isEnabledFor(logging.WARNING):
            complain(text)
        else:
            log.info("%s", text)


def complain(text: str) -> None:
    """Print it for the person who started the worker, whatever is logged."""
    with suppress(OSError, ValueError):  # if nobody reads it any more, the worker goes on
        print(f"worker: {text}", file=sys.stderr, flush=True)


def described(options: WorkerOptions) -> str:
    """What a worker takes, in a line."""
    queues = f"queues {', '.join(options.include_queues)}" if options.include_queues else "all queues"
    if options.exclude_queues:
        queues += f" but {', '.join(options.exclude_queues)}"
    tolerations = ", ".join(options.tolerations) or "none"
    return f"{options.concurrency} at a time, of {queues}, tolerations: {tolerations}"


def left_behind(left: Iterable[pb.Unservable]) -> list[str]:
    """A sentence for each function whose queued nodes no connected worker may run."""
    return [f"left undone: {obstacle(each)}" for each in left]
