"""The nodes that a worker in this process holds, and which of them are running."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

from dagorama.api import broker_pb2 as pb
from dagorama.worker.supervisor.session import Held


class ClaimTable:
    """Granted attempts that were not answered. It implements the run loop's `Claims` with the memory of this process.

    Any thread may call it. As in a child, nodes are numbered in the order of the grants.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[int, int] = {}  # by attempt
        self._unstarted: dict[int, int] = {}  # attempts by ordinal
        self._running: dict[int, tuple[int, int]] = {}  # attempt and ordinal, by entry
        self._cancelled: set[int] = set()  # ordinals of running nodes
        self._notify: Callable[[], object] = lambda: None
        self._given = 0
        self._closed = False

    # --- for the run loop ---

    def start(self, ordinal: int, entry: int, now: int) -> bool:
        """Start the next node; return False if it was taken back, or if the table is closed."""
        with self._lock:
            attempt = None if self._closed else self._unstarted.pop(ordinal, None)
            if attempt is None:
                return False
            self._end(entry)
            self._running[entry] = attempt, ordinal
            return True

    def finish(self, entry: int) -> None:
        """Clear an entry whose result was sent, or that has none."""
        with self._lock:
            self._end(entry)

    def _end(self, entry: int) -> None:
        _, ordinal = self._running.pop(entry, (0, -1))
        self._cancelled.discard(ordinal)

    def is_cancelled(self, entry: int, ordinal: int) -> bool:
        """Return whether the running node with this ordinal was cancelled."""
        return ordinal in self._cancelled

    def watch(self, loop: asyncio.AbstractEventLoop, look: Callable[[], None]) -> None:
        """Call `look` in the loop's thread whenever a node was cancelled."""

        def notify() -> None:
            with suppress(RuntimeError):  # the loop is closed, so no node is running on it
                loop.call_soon_threadsafe(look)

        self._notify = notify

    # --- for the worker ---

    def give(self, grant: pb.Grant) -> None:
        """Add the attempts of a grant."""
        with self._lock:
            self._nodes.update(zip(grant.attempt, grant.node, strict=True))
            self._unstarted.update(enumerate(grant.attempt, self._given))
            self._given += len(grant.attempt)

    def cancel(self, attempts: Iterable[int]) -> None:
        """Remove cancelled attempts. The unstarted ones will not start, and running ones are notified."""
        self.take_back(attempts)
        held = self.answered(attempts)
        with self._lock:
            self._cancelled.update(ordinal for attempt, ordinal in self._running.values() if attempt in held.attempts)
        self._notify()

    def close(self) -> None:
        """Start no more nodes."""
        self._closed = True

    def unstarted(self) -> pb.Return:
        """Take back all attempts that have not started."""
        return self.take_back(list(self._unstarted.values()))

    def take_back(self, attempts: Iterable[int]) -> pb.Return:
        """Take back the attempts among these that have not started."""
        with self._lock:
            ordinals = {attempt: ordinal for ordinal, attempt in self._unstarted.items()}
            taken = [attempt for attempt in attempts if attempt in ordinals]
            for attempt in taken:
                del self._unstarted[ordinals[attempt]]
        held = self.answered(taken)
        return pb.Return(node=held.nodes, attempt=held.attempts)

    def answered(self, attempts: Iterable[int]) -> Held:
        """Remove answered attempts, and return the ones among them that were still held: only these are reported."""
        with self._lock:
            known = [attempt for attempt in attempts if attempt in self._nodes]
            return Held(0, [self._nodes.pop(attempt) for attempt in known], known)

    def rest(self) -> pb.Return:
        """Remove all attempts, and return them as interrupted."""
        held = self.answered(list(self._nodes))
        return pb.Return(node=held.nodes, attempt=held.attempts, reason=pb.INTERRUPTED)

    def runs(self, attempt: int) -> bool:
        """Return whether an attempt is running."""
        with self._lock:
            return any(running == attempt for running, _ in self._running.values())

    @property
    def held(self) -> list[Held]:
        """All attempts, in the form that a session needs."""
        with self._lock:
            return [Held(0, list(self._nodes.values()), list(self._nodes))]
