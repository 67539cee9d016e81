"""Messages of a worker about itself: its start, its connection to the broker, nodes that it cannot run.

The rule: no message is printed once per node.
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
MAX_NAMED_DEFINITIONS = 20
#: remembered functions and reasons of returned nodes, which are logged only once
MAX_REMEMBERED_REASONS = 1_000

#: reasons to return nodes because of a problem of this worker
_WHY: dict[pb.ReturnReason.ValueType, str] = {
    pb.NOT_IMPORTABLE: "the function is not found here",
    pb.CODE_MISMATCH: "the code here is different",
    pb.UNREGISTERED: "the definition is not registered here",
    pb.UNCHECKABLE: "a signature cannot be checked here",
    pb.RESOURCE: "a resource cannot be opened here",
    pb.VALUES: "their large values cannot be stored or fetched",
}


class Notices:
    """Prints or logs messages. With `is_command` a person has started the worker and reads its stderr."""

    def __init__(self, *, is_command: bool = False) -> None:
        self._is_command = is_command
        self._connected_before = False
        self._given_back: set[tuple[str, str]] = set()

    def started(self, options: WorkerOptions, definitions: Iterable[str]) -> None:
        """Say what the worker runs, after its first child is ready."""
        self._announce(f"process {os.getpid()} runs {described(options)}")
        names = list(definitions)
        if len(names) > MAX_NAMED_DEFINITIONS:
            names[MAX_NAMED_DEFINITIONS:] = [f"{len(names) - MAX_NAMED_DEFINITIONS} more"]
        known = f"definitions: {', '.join(names)}" if names else "no definitions are imported yet"
        others = "others are refused" if options.only_imported else f"others are imported as needed, from {os.getcwd()}"
        self._announce(f"{known}; {others}")

    def connected(self, address: str) -> None:
        """Say that the broker has welcomed the worker."""
        self._announce(f"connected to the broker at {address}{' again' if self._connected_before else ''}")
        self._connected_before = True

    def drained(self) -> None:
        """Say that the worker leaves because a person wants it to."""
        self._announce("is leaving, as requested by `dagorama workers drain`: it finishes what it runs")

    def leaves(self, why: str) -> None:
        """Say why the worker leaves by itself."""
        self._announce(f"leaves: {why}")

    def interrupts(self, nodes: int, grace: float) -> None:
        """Say that the worker leaves before its running nodes have ended."""
        get_logger().warning(
            "%d running %s not ended within %g seconds and will run again elsewhere, uncounted: give workers a longer"
            " --grace, or let them leave by themselves (--until idle; in the Helm chart, kind: job)",
            nodes, "node has" if nodes == 1 else "nodes have", grace,
        )  # fmt: skip

    def lost(self, address: str, why: str) -> None:
        """Say that the connection to the broker was lost."""
        get_logger().warning("lost the connection to the broker at %s (%s); retrying", address, why)

    def gave_back(self, returned: pb.Return) -> None:
        """Say why nodes were returned, once for each function and reason."""
        why = _WHY.get(returned.reason)
        if why is None or (returned.function, why) in self._given_back:
            return
        if len(self._given_back) >= MAX_REMEMBERED_REASONS:
            self._given_back.clear()
        self._given_back.add((returned.function, why))
        detail = " ".join(returned.detail.split())
        whose = f" of {returned.function}" if returned.function else ""  # the text names it otherwise
        get_logger().warning("returned nodes%s: %s: %s", whose, why, detail)

    def _announce(self, text: str) -> None:
        log = get_logger()
        if self._is_command and log.isEnabledFor(logging.WARNING):
            complain(text)
        else:
            log.info("%s", text)


def complain(text: str) -> None:
    """Print a message for the person who started the worker, independent of the log level."""
    with suppress(OSError, ValueError):  # stderr is closed
        print(f"worker: {text}", file=sys.stderr, flush=True)


def described(options: WorkerOptions) -> str:
    """Return one line with the concurrency, queues and tolerations of a worker."""
    queues = f"queues {', '.join(options.include_queues)}" if options.include_queues else "all queues"
    if options.exclude_queues:
        queues += f" except {', '.join(options.exclude_queues)}"
    tolerations = ", ".join(options.tolerations) or "none"
    return f"{options.concurrency} at a time, of {queues}, tolerations: {tolerations}"


def left_behind(left: Iterable[pb.Unschedulable]) -> list[str]:
    """Return a sentence for each function whose queued nodes no connected worker can run."""
    return [f"left undone: {obstacle(each)}" for each in left]
