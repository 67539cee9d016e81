"""Reasons for a worker to leave by itself: it is idle, its lifetime ends, or the process that started it has ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from dagorama.settings import WorkerOptions
from dagorama.worker.run_times import RunTimes
from dagorama.worker.supervisor.waits import idle_for

#: Bounds of the seconds between two looks at how long nodes take.
SHORTEST_LOOK_S, LONGEST_LOOK_S = 0.05, 1.0
#: Looks within a lifetime.
LOOKS = 100
_READ_BYTES = 4096


class Manner(Enum):
    """How a worker leaves."""

    DRAINING = "running nodes get the grace period"
    PATIENT = "running nodes may finish, however long they take"
    HURRIED = "running nodes are ended, and returned uncounted"


class Events(NamedTuple):
    """The questions that the watch asks a worker, and its message to it."""

    activity: Callable[[], int | None]  #: as `idle_for` asks it
    leave: Callable[[str, Manner], None]  #: called with the reason


class OwnEnd:
    """Watches for the reasons that the options of a worker name. Use it in the loop of the worker."""

    def __init__(self, options: WorkerOptions, run_times: Iterable[RunTimes], events: Events) -> None:
        self._options = options
        self._run_times = list(run_times)
        self._events = events

    def watch(self) -> list[asyncio.Task[None]]:
        """Begin, and return tasks to cancel at the end."""
        options, waits = self._options, []
        if options.idle is not None:
            waits.append(self._await_idleness(options.idle))
        if options.lifetime is not None:
            waits.append(self._await_lifetime(options.lifetime))
        if options.lifeline is not None:
            asyncio.get_running_loop().add_reader(options.lifeline, self._on_lifeline, options.lifeline)
        return [asyncio.ensure_future(wait) for wait in waits]

    async def _await_idleness(self, seconds: float) -> None:
        await idle_for(seconds, self._events.activity)
        self._events.leave(f"it had nothing to do for {seconds:g} seconds", Manner.DRAINING)

    async def _await_lifetime(self, seconds: float) -> None:
        """Wait until a node as long as the ones before would not fit into the rest of the lifetime."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        look = min(max(seconds / LOOKS, SHORTEST_LOOK_S), LONGEST_LOOK_S)
        while (left := until - loop.time()) > (longest := longest_mean(self._run_times)):
            await asyncio.sleep(min(look, left - longest))
        why = f"its lifetime of {seconds:g} seconds is over"
        if left > 0:
            why = f"{left:.3g} seconds of its lifetime are left, and nodes that it ran take {longest:.3g} seconds"
        self._events.leave(f"{why}; it finishes what it runs", Manner.PATIENT)

    def _on_lifeline(self, descriptor: int) -> None:
        try:
            is_open = bool(os.read(descriptor, _READ_BYTES))
        except BlockingIOError:
            return
        except OSError:  # the other end of a socket was reset
            is_open = False
        if not is_open:
            asyncio.get_running_loop().remove_reader(descriptor)
            self._events.leave("the process that holds its lifeline is gone", Manner.HURRIED)


def longest_mean(run_times: Iterable[RunTimes]) -> float:
    """Return the mean run time in seconds of the function whose nodes take longest; 0.0 if none has run."""
    runs: dict[str, list[int]] = {}
    for each in run_times:
        for name, counts, microseconds in each.read():
            sums = runs.setdefault(name, [0, 0])
            sums[0] += sum(counts)
            sums[1] += microseconds
    return max((total / count / 1e6 for count, total in runs.values() if count), default=0.0)
