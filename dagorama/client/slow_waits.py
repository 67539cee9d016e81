"""Waits that take long: one thread per process asks why, and says so in the log.

The rule: a wait that ends in time costs an entry in a table. What was said is said again only when it has changed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Protocol

from dagorama.client.explain import Reasons, reasons
from dagorama.logging import get_logger

#: seconds between two looks at the waits, at most
LOOK = 1.0
#: seconds between two questions to the broker, at least
QUESTION = 0.2
#: looks in a row without a wait after which the thread ends
IDLE_LOOKS = 10


class Wait(Protocol):
    """Something that waits for nodes."""

    @property
    def waits_since(self) -> float | None:
        """By the monotonic clock; None while the caller does something else."""
        ...

    @property
    def unanswered(self) -> Mapping[bytes, bytes]:
        """The nodes that have not ended, and the instance of each."""
        ...


class Waits:
    """The waits of one process. Any thread may enter and leave one."""

    def __init__(self) -> None:
        self.reset()
        # After a fork the thread, those who waited, and who held the lock, are in the parent only.
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Forget all waits."""
        self._lock = threading.Lock()
        self._waits: dict[int, Wait] = {}
        self._thread: threading.Thread | None = None
        self._said: frozenset[str] = frozenset()
        self._after = 0.0

    def enter(self, wait: Wait, after: float) -> None:
        """`after`: the seconds of waiting after which it is asked why; the last caller's count for all."""
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
        """Whether there is still nothing to look at; then the next wait starts another thread."""
        with self._lock:
            if not self._waits:
                self._thread = None
            return self._thread is None

    def _due(self, after: float) -> list[Wait]:
        """Those that have waited for so many seconds."""
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
