"""Whether a process is alive and ready, as HTTP pages for probes.

The rule: *alive* means that the event loop turns, so that a restart would help if it does not; *ready* means that work
can be given to the process now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic

from dagorama_monitoring.listener import Answer, Pages, Request

#: Seconds between two notes that the loop turns.
TURN = 1.0
#: Seconds without a turn after which the process counts as stuck; a slow disk or a full machine must not get it killed.
STUCK = 30.0


class Health:
    """The answers of one process to probes, which may be asked for in any thread."""

    def __init__(self, obstacle: Callable[[], str]) -> None:
        """`obstacle` returns why the process is not ready; empty: it is. It is called in the listener's thread."""
        self._obstacle = obstacle
        self._turned_at: float | None = None  # None: the loop is not watched yet, because the process starts

    async def watch_loop(self) -> None:
        """Note that this event loop turns, until it is cancelled."""
        while True:
            self._turned_at = monotonic()
            await asyncio.sleep(TURN)

    @property
    def pages(self) -> Pages:
        """The pages of a listener, by path."""
        return {"/livez": self._livez, "/readyz": self._readyz}

    def _stuck(self) -> str:
        """Return that the loop is stuck; empty: it is not."""
        silence = 0.0 if self._turned_at is None else monotonic() - self._turned_at
        return f"the event loop has not turned for {silence:.0f} seconds" if silence > STUCK else ""

    async def _livez(self, _: Request) -> Answer:
        return _answer("live", self._stuck())

    async def _readyz(self, _: Request) -> Answer:
        return _answer("ready", self._stuck() or self._obstacle())


def _answer(state: str, obstacle: str) -> Answer:
    if obstacle:
        return Answer.text(HTTPStatus.SERVICE_UNAVAILABLE, f"not {state}: {obstacle}")
    return Answer.text(HTTPStatus.OK, state)
