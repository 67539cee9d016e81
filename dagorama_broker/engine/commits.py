"""Commits: how callers wait until a change is durable, and the thread in which the store is called.

Calls change the scheduler at once and then wait for the commit that holds their change; changes that gather while a
commit runs go into the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter, thread_time
from typing import Any, ParamSpec, TypeVar

from dagorama_broker.engine.clock import SYSTEM, Clock
from dagorama_broker.errors import Unavailable
from dagorama_broker.model.rows import Changes
from dagorama_broker.scheduler import Scheduler, name_key
from dagorama_broker.store.protocol import Store

P = ParamSpec("P")
T = TypeVar("T")
#: Called with None when something is durable, or with the error that prevents it.
Waiter = Callable[[Unavailable | None], None]

CALL_AGAIN = "the broker is shutting down; try again when it is back"
#: Rows up to which a commit is short.
FEW = 8
#: Seconds that a short commit waits for a fast disk, at most, and number of the last ones that show how fast it is.
QUICK, LAST = 0.001, 8
#: Seconds that the loop must not wait again soon, however fast the disk is usually.
STALL = 0.025


class CommitExecutor(ThreadPoolExecutor):
    """Makes the store's calls one after another, and tells when a commit need not go to this thread.

    A switch to another thread and back takes half as long as a short commit, so that the event loop had better make
    short commits itself: only while the disk is fast, because the loop is blocked meanwhile, and only while the thread
    is idle, so that no two threads use the store at once.
    """

    def __init__(self, few: int = FEW) -> None:
        """`few`: rows up to which a commit may be made by the caller; 0: none is."""
        super().__init__(1, thread_name_prefix="store")
        self._few = few
        self._jobs: list[Future[Any]] = []
        self.last_seconds = 0.0  #: of the last commit
        self._waits: deque[float] = deque(maxlen=LAST)  # seconds that the last short commits have waited
        self._is_fast = False  # the disk; the first commit shows whether it is

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        job = super().submit(fn, *args, **kwargs)
        self._jobs = [*(other for other in self._jobs if not other.done()), job]
        return job

    def may_commit_outside(self, changes: Changes) -> bool:
        """Return whether the caller should make this commit itself."""
        return self._is_fast and self._is_short(changes) and all(job.done() for job in self._jobs)

    def timed(self, commit: Callable[[Changes], None], changes: Changes) -> None:
        """Make a commit, in any thread, and measure it."""
        start, start_cpu = perf_counter(), thread_time()
        commit(changes)
        self.last_seconds = seconds = perf_counter() - start
        if self._is_short(changes):
            # Processor time is spent in either place, so that only the wait for the disk counts. Other processes make
            # it longer and never shorter, so that quick commits tell how fast the disk is: the second of the last ones.
            self._waits.append(seconds - (thread_time() - start_cpu))
            second = sorted(self._waits)[min(1, len(self._waits) - 1)]
            self._is_fast = second < QUICK and max(self._waits) < STALL

    def _is_short(self, changes: Changes) -> bool:
        if not self._few or changes.removed or changes.retried or changes.functions_gone:
            return False
        return len(changes.nodes) + len(changes.outcomes) + len(changes.instances) + len(changes.resolved) <= self._few


class Commits:
    """Connects the callers that change the scheduler with the loop that commits the changes."""

    def __init__(
        self, scheduler: Scheduler, store: Store, thread: CommitExecutor | None = None, clock: Clock = SYSTEM
    ) -> None:
        self.scheduler = scheduler
        self.store = store
        self.clock = clock
        self.in_flight = Changes()  #: changes under way
        self.count = 0
        self.changed = asyncio.Event()  #: set when the loop has something to do
        self.stopping = False
        self.thread = thread or CommitExecutor(FEW if store.near else 0)
        #: Makes the calls of people, which need not wait for commits.
        self._viewer = self.thread if store.view.is_the_store else ThreadPoolExecutor(1, thread_name_prefix="view")
        #: Looks at a store that is not near, which need not wait for commits either.
        self._looker = self.thread if store.near else ThreadPoolExecutor(1, thread_name_prefix="look")
        self._in_flight_ids: set[bytes] = set()
        #: Called with each commit that is durable, and with the IDs and name keys that it has made.
        self.observers: set[Callable[[Changes, set[bytes]], None]] = set()
        self._waiting: list[Waiter] = []  # for the next commit
        self._tasks: set[asyncio.Task[None]] = set()

    # --- for callers ----------------------------------------------------------------------------------

    def mark_changed(self) -> None:
        """Mark the scheduler as changed. Raises Unavailable while the broker leaves."""
        if self.stopping:
            raise Unavailable(CALL_AGAIN)
        self.changed.set()

    def when_durable(self, waiter: Waiter) -> None:
        """Call `waiter` when the present state of the scheduler is durable, and sent. Call `mark_changed` before it."""
        self._waiting.append(waiter)

    async def wait_durable(self) -> None:
        """Wait until the present state of the scheduler is durable, and sent. Raises Unavailable."""
        await self.next_commit()

    def next_commit(self) -> asyncio.Future[None]:
        """Return a future that is done when the present state of the scheduler is durable. Raises Unavailable."""
        self.mark_changed()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: Unavailable | None) -> None:
            if future.done():
                return  # the caller has hung up
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self.when_durable(done)
        future.add_done_callback(_retrieve_exception)
        return future

    async def next_turn(self) -> None:
        """Let other calls run. Raises Unavailable while the broker leaves."""
        await asyncio.sleep(0)
        if self.stopping:
            raise Unavailable(CALL_AGAIN)

    async def settled(self) -> None:
        """Wait until the scheduler has put nothing off. Raises Unavailable."""
        while not self.scheduler.is_settled:
            await self.wait_durable()

    def go_on_with(self, work: Coroutine[None, None, None]) -> None:
        """Run this to its end even if the call that wants it is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def is_unwritten(self, id: bytes) -> bool:
        """Return whether the scheduler made this instance, name key or origin of nodes, and the store lacks it yet."""
        return self.scheduler.is_unwritten(id) or id in self._in_flight_ids

    async def in_store(self, call: Callable[..., T], *arguments: object) -> T:
        """Make one of the store's calls in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, call, *arguments)

    async def quickly(self, call: Callable[..., T], *arguments: object) -> T:
        """Make one of the store's quick calls: in the loop if the store is near, without awaiting anything."""
        return call(*arguments) if self.store.near else await self.in_store(call, *arguments)

    async def in_view(self, call: Callable[..., T], *arguments: object) -> T:
        """Make one of the calls of the store's view in its thread: commits do not wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._viewer, call, *arguments)

    async def in_look(self, call: Callable[..., T], *arguments: object) -> T:
        """Look at the store in a thread of its own, while commits go on in theirs."""
        return await asyncio.get_running_loop().run_in_executor(self._looker, call, *arguments)

    @contextmanager
    def observed(self) -> Iterator[list[Changes]]:
        """Yield a list to which each commit is added that becomes durable within the context."""
        since: list[Changes] = []

        def observe(changes: Changes, made: set[bytes]) -> None:
            since.append(changes)

        self.observers.add(observe)
        try:
            yield since
        finally:
            self.observers.discard(observe)

    # --- for the loop ---------------------------------------------------------------------------------

    def take_waiting(self) -> list[Waiter]:
        """Return the waiters of the next commit, and begin a new list."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def begin(self, changes: Changes) -> None:
        """Record that these changes are being committed."""
        self.in_flight = changes
        self._in_flight_ids = {row.origin for row in changes.blocks} | {row.id for row in changes.instances}
        if changes.names:
            self._in_flight_ids.update(name_key(row.definition, row.name) for row in changes.names)

    def end(self) -> None:
        """Record that the changes are durable."""
        for observe in self.observers:
            observe(self.in_flight, self._in_flight_ids)
        self.in_flight, self._in_flight_ids = Changes(), set()
        self.count += 1

    def close(self) -> None:
        """Refuse the remaining waiters, and end the threads."""
        notify(self.take_waiting(), Unavailable("the broker is shutting down"))
        self.thread.shutdown()
        self._viewer.shutdown()
        self._looker.shutdown()


def notify(waiting: list[Waiter], error: Unavailable | None) -> None:
    """Call each waiter."""
    for waiter in waiting:
        waiter(error)


def _retrieve_exception(future: asyncio.Future[None]) -> None:
    """Mark an exception as seen, because the caller may have hung up."""
    if not future.cancelled():
        future.exception()
