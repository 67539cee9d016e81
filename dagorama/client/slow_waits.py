"""Waits that take long: one thread per process asks the broker for the reason and logs it.

The rule: a wait that ends in time costs one entry in a table. A reason is logged again only after it has changed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Protocol

from dagorama.client.explain import Reasons, reasons
from dagorama.logging import get_logger

#: The largest number of seconds between two checks of the waits.
LOOK = 1.0
#: The smallest number of seconds between two requests to the broker.
QUESTION = 0.2
#: Consecutive checks without a wait after which the thread ends.
IDLE_LOOKS = 10


class Wait(Protocol):
    """Something that waits for nodes."""

    @property
    def waits_since(self) -> float | None:
        """The start of the wait by the monotonic clock; None while the caller does something else."""
        ...

    @property
    def unanswered(self) -> Mapping[bytes, bytes]:
        """The nodes that have not ended, and the instance of each."""
        ...


class Waits:
    """The waits of one process. It is thread-safe."""

    def __init__(self) -> None:
        self.reset()
        # After a fork the thread, the waiting threads and the owner of the lock exist only in the parent.
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Forget all waits."""
        self._lock = threading.Lock()
        self._waits: dict[int, Wait] = {}
        self._thread: threading.Thread | None = None
        self._said: frozenset[str] = frozenset()
        self._after = 0.0

    def enter(self, wait: Wait, after: float) -> None:
        """Add a wait; its reason is asked for after `after` seconds. The last caller's number applies to all waits."""
        with self._lock:
            self._after = after
            self._waits[id(wait)] = wait
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name="dagorama-waits", daemon=True)
                self._thread.start()

    def leave(self, wait: Wait) -> None:
        with self._lock:
            self._waits.pop(id(wait), None)

    # --- in a thread of its own -----------------------------------------------------------------------

    def _live(self) -> None:
        pause, idle, asked_at = threading.Event(), 0, 0.0
        while idle < IDLE_LOOKS or not self._end():
            after = self._after
            pause.wait(min(LOOK, max(after, QUESTION) / 4))
            idle = 0 if self._waits else idle + 1
            due = self._due(after)
            if not due:
                self._said = frozenset()
            elif monotonic() - asked_at >= max(after, QUESTION):
                self._look(due, after)
                asked_at = monotonic()

    def _end(self) -> bool:
        """Return whether there are no waits; the next wait then starts another thread."""
        with self._lock:
            if not self._waits:
                self._thread = None
            return self._thread is None

    def _due(self, after: float) -> list[Wait]:
        """Return the waits that have lasted for `after` seconds."""
        before = monotonic() - after
        with self._lock:
            waits = list(self._waits.values())
        return [wait for wait in waits if (since := wait.waits_since) is not None and since <= before]

    def _look(self, due: list[Wait], after: float) -> None:
        owners: dict[bytes, bytes] = {}
        for wait in due:
            owners |= wait.unanswered
        if owners:
            self._say(reasons(owners), after)

    def _say(self, found: Reasons, after: float) -> None:
        if found.known - self._said:
            get_logger().warning("still waiting after %g seconds: %s; the wait goes on", after, found.text)
        self._said = found.known


waits = Waits()
