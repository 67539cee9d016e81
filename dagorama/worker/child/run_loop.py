"""Works off what a slot was given, in order: sync nodes in the calling thread, async ones in their lane.

It also sees to it that results leave: when enough have gathered, soon after the first of them, when there is nothing
left to do, and, from a thread of its own, when a node takes unexpectedly long.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from functools import partial
from time import monotonic_ns, sleep
from typing import TYPE_CHECKING

from dagorama.worker.child.async_runner import AsyncLane, Claims
from dagorama.worker.child.executor import Call, Executor
from dagorama.worker.child.outbox import Outbox

if TYPE_CHECKING:
    import asyncio

PROMPT = 2_000_000  #: nanoseconds that the first result waits for others, counted from its node's start
CALM = 50_000_000  #: nanoseconds in which async nodes may end before a sync one starts, if it is careful
PATIENCE = 0.004  #: seconds after which results do not wait for a running node any longer


class Engine:
    def __init__(self, executor: Executor, claims: Claims, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._executor = executor
        self._claims = claims
        self._out = _Flusher(executor.outbox)
        executor.outbox.on_waiting = self._out.watch
        self.lane = AsyncLane(claims, executor.run_async, self._out, loop)
        self._queue: deque[Call] = deque()
        self._next = 0
        self._since = 0  # start of the first node whose result waits; 0: none does
        self.careful = False  #: results leave before the next sync node starts: it is known which node stops them

    def add(self, calls: Iterable[Call]) -> None:
        self._queue.extend(calls)

    def flush(self) -> None:
        self._since = 0
        self._out.flush()
        self._claims.finish(0)

    def watch(self) -> None:
        """Results that are here go out soon, even if nobody calls `flush`."""
        if self._since:
            self._out.watch()

    def close(self) -> None:
        """Its threads end; nothing is to be added any more."""
        self._out.close()
        self.lane.close()

    def work_off(self) -> None:
        """Until the queue is empty; async nodes may still run then."""
        queue = self._queue
        self.watch()  # results of before wait while this runs
        while queue:
            if queue[0].work.is_async:
                self._start_async_ones()
            else:
                self._run_sync_ones()

    def _start_async_ones(self) -> None:
        queue = self._queue
        while queue and queue[0].work.is_async:
            self.lane.add(queue.popleft(), self._next)
            self._next += 1
        self.lane.dispatch()
        if self.careful:
            self._give_them_time()

    def _give_them_time(self) -> None:
        until = monotonic_ns() + CALM
        while self.lane.busy and monotonic_ns() < until:
            sleep(PATIENCE)
        self.flush()

    def _run_sync_ones(self) -> None:
        # A node's entry is left to the next one, or to `flush`: should the process die before, it was under way.
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
                if queue:  # else somebody flushes, or calls again, at once
                    self._out.watch()
            if ended - self._since > PROMPT or self.careful:
                self.flush()


class _Flusher:
    """Sends results, also by a thread of its own when nobody else has for a while; it sleeps when there are none."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._wanted = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._live, name="dagorama-flush", daemon=True)
        self._thread.start()

    def flush(self) -> None:
        self._outbox.flush()

    def watch(self) -> None:
        """There are results in the outbox."""
        if not self._wanted.is_set():
            self._wanted.set()

    def close(self) -> None:
        self._closed = True
        self._wanted.set()
        self._thread.join()

    def _live(self) -> None:
        while not self._closed and self._wanted.wait():
            sent = self._outbox.sent
            sleep(PATIENCE)
            # Where something was sent, those who send are alive. Whoever adds after `clear` calls `watch` or sends.
            if self._outbox.sent == sent:
                self._wanted.clear()
                self._outbox.flush()
