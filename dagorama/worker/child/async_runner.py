"""Run async nodes concurrently on one event loop: in a background thread, or on the loop of the caller."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from time import monotonic_ns
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, NoReturn, Protocol

from dagorama.worker.child.forks import forget_in_forks, leave
from dagorama.worker.failures import OURS

if TYPE_CHECKING:
    import asyncio

    from dagorama.worker.child.call import Call

MAX_CONCURRENT_NODES = 100
LOOP_STOP_TIMEOUT_S = 1.0
LONGEST_CHAIN = 1_000  #: coroutines of a stack that are shown
RESULT_BATCH_DELAY_S = 0.001  #: results that become available within this time are sent together, while other nodes run


class Claims(Protocol):
    """Knows which nodes may start and which are running. Implemented by SlotMemory and by the in-process worker."""

    def start(self, ordinal: int, entry: int, now: int) -> bool:
        """Start the next node; return False if it was taken back. `now` is in monotonic nanoseconds."""
        ...

    def finish(self, entry: int) -> None:
        """Clear an entry whose result was sent, or that has none. Until then its node counts as running."""
        ...

    def is_cancelled(self, entry: int, ordinal: int) -> bool:
        """Return whether the node, which was started with this entry and ordinal, was cancelled."""
        ...

    def watch(self, loop: asyncio.AbstractEventLoop, look: Callable[[], None]) -> None:
        """Call `look` in the loop's thread whenever a node was cancelled. Call this once, in that thread."""
        ...


class Out(Protocol):
    """The destination of results."""

    def flush(self) -> None:
        """Send all results now."""
        ...

    def watch(self) -> None:
        """Send results soon, even if `flush` is not called."""
        ...


IsCancelled = Callable[[], bool]
Run = Callable[["Call", int, IsCancelled], Coroutine[object, object, int]]
#: For each type of a suspended function: the names of its frame, and of the object that it awaits.
_AWAITING: dict[type, tuple[str, str]] = {
    CoroutineType: ("cr_frame", "cr_await"),
    GeneratorType: ("gi_frame", "gi_yieldfrom"),
    AsyncGeneratorType: ("ag_frame", "ag_await"),
}
_Started = tuple["Call", int, int, IsCancelled]  # a call, its entry and its start time


class AsyncRunner:
    """Call `add` and `dispatch` from one thread, not the loop's. Entry 0 is reserved for sync nodes."""

    def __init__(self, claims: Claims, run: Run, out: Out, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Run nodes on `loop`, if given; then `add` must not be called while the runner is `full`."""
        self._claims = claims
        self._run = run
        self._out = out
        self._loop = loop
        self._thread: threading.Thread | None = None
        self._closed = False
        self._free = list(range(MAX_CONCURRENT_NODES, 0, -1))
        self._last = MAX_CONCURRENT_NODES + 1  # entry of the node that ended last, kept until its result was sent
        self._room = threading.Event()
        self._started: list[_Started] = []
        self.tasks: set[asyncio.Task[None]] = set()  #: of running nodes
        self._to_cancel: dict[asyncio.Task[None], tuple[Call, IsCancelled]] = {}  # tasks in their node, not cancelled
        self._watching = False
        self._loop_thread = 0
        self._flushing = False
        self._forked = False
        forget_in_forks(self)

    def add(self, call: Call, ordinal: int) -> None:
        """Claim a node, and wait for a free entry if necessary. The node starts at the next `dispatch`."""
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
        """Start all added nodes with one wake-up of the loop."""
        if self._started:
            started, self._started = self._started, []
            (self._loop or self._begin()).call_soon_threadsafe(self._spawn, started)

    def close(self) -> None:
        """Stop the loop, unless it is the caller's. If a node blocks the loop, do not wait for it."""
        self._closed = True
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(LOOP_STOP_TIMEOUT_S)

    def forget(self) -> None:
        """In a fork, exit when its code returns to the loop: other tasks of the loop belong to the parent process."""
        self._forked = True
        if self._loop is None or self._loop_thread != threading.get_ident():
            return
        if self._thread is None:
            self._loop.call_soon(leave_loop)  # the caller's code surrounds the loop
        else:
            self._loop.stop()

    def stack_of(self, attempt: int) -> str:
        """Return the stack of the coroutine of a running node, the latest call first; empty if it does not run here."""
        running = self._to_cancel.copy().items()  # the loop's thread changes it
        task = next((task for task, (call, _) in running if call.attempt == attempt), None)
        return "" if task is None else "\n".join(reversed(list(await_chain(task.get_coro()))))

    @property
    def busy(self) -> bool:
        """True if a node is running or was added."""
        return len(self._free) < MAX_CONCURRENT_NODES

    @property
    def full(self) -> bool:
        """True if no further node can be added."""
        return not self._free

    def wait_for_room(self) -> None:
        """Wait until a node has ended, if the runner is full."""
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
            with suppress(BaseException):  # a task of user code raised SystemExit; its awaiter receives it too
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
                self._to_cancel[task] = call, is_cancelled
                await self._run(call, now, is_cancelled)
        finally:
            self._to_cancel.pop(task, None)
            if is_cancelled():
                self._claims.finish(entry)  # there is no result to send
            self._linger(entry)
            self._room.set()
            self._out.watch()  # another node may block this loop
            self._flush_soon()

    def _linger(self, entry: int) -> None:
        """Keep the entry until its result was sent or another node has ended. A crash until then counts as its own."""
        self._claims.finish(self._last)
        self._free.append(self._last)
        self._last = entry

    def _tell_cancelled(self) -> None:
        """Cancel each cancelled node's task once: a second CancelledError would interrupt its cleanup."""
        for task in [task for task, (_, is_cancelled) in self._to_cancel.items() if is_cancelled()]:
            del self._to_cancel[task]
            task.cancel()

    def _flush_soon(self) -> None:
        assert self._loop is not None
        if not self._flushing:
            self._flushing = True
            self._loop.call_later(RESULT_BATCH_DELAY_S if self.busy else 0, self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self._out.flush()
        self._claims.finish(self._last)


def leave_loop() -> NoReturn:
    """Exit a fork that has returned to an event loop of its parent process."""
    leave(RuntimeError("a process forked by an async node cannot await on the event loop of the node"))


def await_chain(awaited: object) -> Iterator[str]:
    """Yield a line for each coroutine that awaits the next one, from user code on. No code of these objects runs."""
    from asyncio import Task

    is_ours = True
    for _ in range(LONGEST_CHAIN):
        if (names := _AWAITING.get(type(awaited))) is not None:
            frame, awaited = (getattr(awaited, name) for name in names)
            if frame is None:  # it has ended meanwhile
                return
            code = frame.f_code
            is_ours = is_ours and code.co_filename.startswith(OURS)
            if not is_ours:
                yield f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}'
        else:
            # A coroutine awaits an iterator, which has no attribute that leads to its task.
            task = next((each for each in gc.get_referents(awaited) if isinstance(each, Task)), None)
            if task is None:  # something else ends the wait, such as a timer or a socket
                return
            awaited = task.get_coro()
