"""Async nodes: up to LIMIT of them overlap on one event loop, in a background thread unless the caller has a loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, NoReturn, Protocol

from dagorama.worker.child.forks import forget_in_forks, leave

if TYPE_CHECKING:
    import asyncio

    from dagorama.worker.child.executor import Call

LIMIT = 100
PATIENCE = 1.0  #: seconds for a loop that is told to end
GATHER = 0.001  #: seconds in which what ends goes out together, while others still run


class Claims(Protocol):
    """Which nodes may still start, and which run: SlotMemory, or what stands in for it."""

    def start(self, ordinal: int, entry: int, now: int) -> bool: ...

    def finish(self, entry: int) -> None:
        """The entry's result has left, or it has none; until then its node counts as running."""
        ...

    def is_cancelled(self, entry: int, ordinal: int) -> bool:
        """Whether the node of that ordinal, which was started under that entry, was cancelled since."""
        ...

    def watch(self, loop: asyncio.AbstractEventLoop, look: Callable[[], None]) -> None:
        """Have `look` called in the loop's thread whenever something was cancelled. For that thread, once."""
        ...


class Out(Protocol):
    """Where results go."""

    def flush(self) -> None:
        """Send them now."""
        ...

    def watch(self) -> None:
        """There are some: they go out soon even if nobody calls `flush`."""
        ...


IsCancelled = Callable[[], bool]
Run = Callable[["Call", int, IsCancelled], Coroutine[object, object, int]]
_Started = tuple["Call", int, int, IsCancelled]  # with its entry and the time


class AsyncLane:
    """`add` and `dispatch` are for one thread, which is not the loop's own. Entry 0 is left for sync nodes."""

    def __init__(self, claims: Claims, run: Run, out: Out, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """With `loop`, nodes run on that one; then `add` must not be called when the lane is `full`."""
        self._claims = claims
        self._run = run
        self._out = out
        self._loop = loop
        self._thread: threading.Thread | None = None
        self._closed = False
        self._free = list(range(LIMIT, 0, -1))
        self._last = LIMIT + 1  # the entry of the node that ended last: it stays until the result has left
        self._room = threading.Event()
        self._started: list[_Started] = []
        self.tasks: set[asyncio.Task[None]] = set()  #: what runs
        self._to_cancel: dict[asyncio.Task[None], IsCancelled] = {}  # inside of their node and not told yet
        self._watching = False
        self._loop_thread = 0
        self._flushing = False
        self._forked = False
        forget_in_forks(self)

    def add(self, call: Call, ordinal: int) -> None:
        """Claim a node, waiting for a place if need be; it runs from the next `dispatch` on."""
        if not self._free:
            self.dispatch()
            self.wait_for_room()
        now = monotonic_ns()
        entry = self._free.pop()
        if self._claims.start(ordinal, entry, now):
            self._started.append((call, entry, now, partial(self._claims.is_cancelled, entry, ordinal)))
        else:
            self._free.append(entry)

    def dispatch(self) -> None:
        """Let what was added run: one wake-up of the loop for all of it."""
        if self._started:
            started, self._started = self._started, []
            (self._loop or self._begin()).call_soon_threadsafe(self._spawn, started)

    def close(self) -> None:
        """End the loop, if it is the lane's own; a node that blocks it is left alone."""
        self._closed = True
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)

    def forget(self) -> None:
        """In a fork: end the fork if it goes back to the loop, whose other tasks run in the process it came from."""
        self._forked = True
        if self._loop is None or self._loop_thread != threading.get_ident():
            return
        if self._thread is None:
            self._loop.call_soon(leave_loop)  # the caller's own code stands around the loop
        else:
            self._loop.stop()

    @property
    def busy(self) -> bool:
        return len(self._free) < LIMIT

    @property
    def full(self) -> bool:
        return not self._free

    def wait_for_room(self) -> None:
        while not self._free:
            self._room.clear()
            if not self._free:
                self._room.wait()

    def _begin(self) -> asyncio.AbstractEventLoop:
        import asyncio

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, args=(self._loop,), name="dagorama-async", daemon=True)
        self._thread.start()
        return self._loop

    def _live(self, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        asyncio.set_event_loop(loop)
        while not self._closed:
            with suppress(BaseException):  # a task of user code raised SystemExit: whoever awaits it gets it too
                loop.run_forever()
            if self._forked:
                leave_loop()
        if not self.tasks:
            loop.close()

    # --- in the loop's thread -----------------------------------------------------------------------

    def _spawn(self, started: list[_Started]) -> None:
        assert self._loop is not None
        if not self._watching:
            self._watching = True
            self._loop_thread = threading.get_ident()
            self._claims.watch(self._loop, self._tell_cancelled)
        for call, entry, now, is_cancelled in started:
            task = self._loop.create_task(self._run_one(call, entry, now, is_cancelled))
            self.tasks.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(self.tasks.discard)

    async def _run_one(self, call: Call, entry: int, now: int, is_cancelled: IsCancelled) -> None:
        from asyncio import current_task

        task = current_task()
        assert task is not None
        try:
            if not is_cancelled():
                self._to_cancel[task] = is_cancelled
                await self._run(call, now, is_cancelled)
        finally:
            self._to_cancel.pop(task, None)
            if is_cancelled():
                self._claims.finish(entry)  # there is no result to leave
            self._linger(entry)
            self._room.set()
            self._out.watch()  # in case another node blocks this loop
            self._flush_soon()

    def _linger(self, entry: int) -> None:
        """Keep the entry until its result has left or another node has ended: a death before that is its own."""
        self._claims.finish(self._last)
        self._free.append(self._last)
        self._last = entry

    def _tell_cancelled(self) -> None:
        """Each is told once: another CancelledError would break off its cleaning up."""
        for task in [task for task, is_cancelled in self._to_cancel.items() if is_cancelled()]:
            del self._to_cancel[task]
            task.cancel()

    def _flush_soon(self) -> None:
        assert self._loop is not None
        if not self._flushing:
            self._flushing = True
            self._loop.call_later(GATHER if self.busy else 0, self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self._out.flush()
        self._claims.finish(self._last)


def leave_loop() -> NoReturn:
    """End a fork that has gone back to a loop of the process that it was forked from."""
    leave(RuntimeError("a process that an async node forks cannot await on the loop that the node runs on"))
