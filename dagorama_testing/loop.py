"""An event loop whose clock moves only when its owner sets it: no sockets, no threads, no waiting."""

from __future__ import annotations

import asyncio
import sys
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context
from heapq import heappop, heappush
from operator import itemgetter
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = 1_000.0


_Timer = tuple[float, int, asyncio.TimerHandle]


class VirtualLoop(asyncio.AbstractEventLoop):
    """A loop for tasks, futures, events and timers, as asyncio needs it. Its owner runs what is ready."""

    def __init__(self) -> None:
        self.now = START
        self.failures: list[BaseException] = []  #: exceptions of tasks and callbacks that were not retrieved
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[_Timer] = []
        self._pauses: list[_Timer] = []  # timers that may run early
        self._count = 0

    # --- for asyncio ----------------------------------------------------------------------------------

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._add(self._timers, when, callback, args, context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._add(self._pauses, self.now + delay, callback, args, context)

    def _add(
        self,
        timers: list[_Timer],
        when: float,
        callback: Callable[[*Ts], object],
        args: tuple[*Ts],
        context: Context | None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heappush(timers, (when, self._count, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is dropped when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Call the function at the next turn of the loop, in the thread that runs the loop."""
        future = self.create_future()

        def call() -> None:
            if future.done():
                return
            try:
                future.set_result(func(*args))
            except BaseException as error:
                future.set_exception(error)

        self.call_soon(call)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None:
            self.failures.append(error)

    async def shutdown_asyncgens(self) -> None:
        """Do nothing: `running` closes generators when they are released."""

    # --- for its owner --------------------------------------------------------------------------------

    @property
    def next_timer(self) -> float | None:
        """The time of the next timer; None if there is none."""
        return min((first[0] for first in map(_first, (self._timers, self._pauses)) if first is not None), default=None)

    def run_ready(self, moment: float = 0.0) -> None:
        """Run what is ready and what was due until now. Time stands still.

        Timers of `call_later`, which are pauses, run up to `moment` seconds early. Timers of `call_at` do not: what is
        not due then would set the same timer again, without end.
        """
        ready = self._ready
        while True:
            while ready:
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
            timer = self._take_timer(self.now, self.now + moment)
            if timer is None:
                return
            ready.append(timer)

    def _take_timer(self, until: float, pauses_until: float) -> asyncio.TimerHandle | None:
        """Take the next timer that is due until then, or the next pause that is over until then; None: none is."""
        due = [
            (first, timers)
            for timers, limit in ((self._timers, until), (self._pauses, pauses_until))
            if (first := _first(timers)) is not None and first[0] <= limit
        ]
        return heappop(min(due, key=itemgetter(0))[1])[2] if due else None


def _first(timers: list[_Timer]) -> _Timer | None:
    """Return the next timer that is not cancelled; None if there is none."""
    while timers and timers[0][2]._cancelled:
        heappop(timers)
    return timers[0] if timers else None


@contextmanager
def running(loop: asyncio.AbstractEventLoop | None) -> Iterator[None]:
    """Make this the running loop of the thread for the block, or let it have none, also within another running loop."""
    outer = events._get_running_loop()
    task = None if outer is None else asyncio.current_task(outer)
    hooks = sys.get_asyncgen_hooks()
    if outer is not None and task is not None:
        asyncio.tasks._leave_task(outer, task)
    if loop is not None:
        sys.set_asyncgen_hooks(firstiter=None, finalizer=closer(loop))
    events._set_running_loop(loop)
    try:
        yield
    finally:
        events._set_running_loop(outer)
        sys.set_asyncgen_hooks(*hooks)
        if outer is not None and task is not None:
            asyncio.tasks._enter_task(outer, task)


def closer(loop: asyncio.AbstractEventLoop) -> Callable[[AsyncGenerator[Any, Any]], None]:
    """Return the hook that closes async generators which are released before they have ended."""

    def close(generator: AsyncGenerator[Any, Any]) -> None:
        loop.create_task(generator.aclose())

    return close
