"""Run the nodes of a slot in order: sync nodes in the calling thread, async nodes in the async runner.

The run loop also decides when results are sent: when there are enough of them, a short time after the first of them,
when there is nothing left to run, and, from a separate thread, when a node takes unexpectedly long.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from functools import partial
from time import monotonic_ns, sleep
from typing import TYPE_CHECKING

from dagorama.worker.child.async_runner import AsyncRunner, Claims
from dagorama.worker.child.call import Call
from dagorama.worker.child.executor import Executor
from dagorama.worker.child.outbox import Outbox

if TYPE_CHECKING:
    import asyncio

MAX_RESULT_DELAY_NS = 2_000_000  #: longest wait of the first result for others, from the start of its node
CAREFUL_ASYNC_WAIT_NS = 50_000_000  #: time for async nodes to end before a sync node starts, in careful mode
FLUSH_DELAY_S = 0.004  #: longest wait of results for a running node


class RunLoop:
    """The run loop of one child, or of a worker in this process."""

    def __init__(self, executor: Executor, claims: Claims, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._executor = executor
        self._claims = claims
        self._out = _Flusher(executor.outbox)
        executor.outbox.on_waiting = self._out.watch
        self.queue = AsyncRunner(claims, executor.run_async, self._out, loop)
        self._queue: deque[Call] = deque()
        self._next = 0
        self._since = 0  # start of the first node whose result is not sent; 0 if there is none
        #: Send each result before the next sync node starts, to find the node that breaks the socket.
        self.careful = False

    def add(self, calls: Iterable[Call]) -> None:
        """Add nodes to the end of the queue."""
        self._queue.extend(calls)

    def flush(self) -> None:
        """Send all results now."""
        self._since = 0
        self._out.flush()
        self._claims.finish(0)

    def watch(self) -> None:
        """Send results soon, even if `flush` is not called."""
        if self._since:
            self._out.watch()

    def close(self) -> None:
        """End the threads. No nodes may be added afterwards."""
        self._out.close()
        self.queue.close()

    def work_off(self) -> None:
        """Run nodes until the queue is empty. Async nodes may still be running afterwards."""
        queue = self._queue
        self.watch()  # earlier results must not wait for this run
        while queue:
            if queue[0].work.is_async:
                self._start_async_ones()
            else:
                self._run_sync_ones()

    def _start_async_ones(self) -> None:
        queue = self._queue
        while queue and queue[0].work.is_async:
            self.queue.add(queue.popleft(), self._next)
            self._next += 1
        self.queue.dispatch()
        if self.careful:
            self._give_them_time()

    def _give_them_time(self) -> None:
        until = monotonic_ns() + CAREFUL_ASYNC_WAIT_NS
        while self.queue.busy and monotonic_ns() < until:
            sleep(FLUSH_DELAY_S)
        self.flush()

    def _run_sync_ones(self) -> None:
        # The next node, or `flush`, clears the entry. If the process exits before, the node counts as running.
        queue, start, run = self._queue, self._claims.start, self._executor.run
        is_cancelled = self._claims.is_cancelled
        while queue and not queue[0].work.is_async:
            call, ordinal, now = queue.popleft(), self._next, monotonic_ns()
            self._next += 1
            if not start(ordinal, 0, now):
                self._executor.skip(call)
                continue
            ended = run(call, now, partial(is_cancelled, 0, ordinal))
            if not self._since:
                self._since = now
                if queue:  # otherwise the caller flushes, or calls again, immediately
                    self._out.watch()
            if ended - self._since > MAX_RESULT_DELAY_NS or self.careful:
                self.flush()


class _Flusher:
    """Sends results. A thread sends them if no other thread has done so for a while; it sleeps if there are none."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._wanted = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._live, name="dagorama-flush", daemon=True)
        self._thread.start()

    def flush(self) -> None:
        self._outbox.flush()

    def watch(self) -> None:
        """Let the thread send the results that are in the outbox."""
        if not self._wanted.is_set():
            self._wanted.set()

    def close(self) -> None:
        self._closed = True
        self._wanted.set()
        self._thread.join()

    def _live(self) -> None:
        while not self._closed and self._wanted.wait():
            sent = self._outbox.sent
            sleep(FLUSH_DELAY_S)
            # If results were sent meanwhile, another thread is active. Later results come with `watch` or `flush`.
            if self._outbox.sent == sent:
                self._wanted.clear()
                self._outbox.flush()
