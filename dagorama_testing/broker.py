"""A broker on a virtual loop: the real service, scheduler and memory store, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from functools import wraps
from math import inf
from threading import RLock
from typing import Any, ParamSpec, TypeVar

import grpc

from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.commits import CommitExecutor
from dagorama_broker.engine.retention_policy import RetentionPolicy
from dagorama_broker.rpc.limits import CallLimiter, RequestLimits, WorkerConfig
from dagorama_broker.rpc.memory_guard import MemoryGuard
from dagorama_broker.rpc.service import BrokerService
from dagorama_broker.scheduler import Limits, Scheduler, Timing
from dagorama_broker.store.memory.store import MemoryStore
from dagorama_testing.calls import Call, rpc_error
from dagorama_testing.loop import START, VirtualLoop, running

P = ParamSpec("P")
R = TypeVar("R")
OURS = "/dagorama.v1.Broker/"
#: Seconds within which the loop runs timers although the clock stands still: pauses in which messages gather.
MOMENT = 0.005
#: Bytes that the broker of a test may use: it shares the process, whose size is not its own.
MEMORY = 1 << 40
STREAMS = 10_000


class InlineClock:
    """The time of an inline broker: it stands still until the loop's time is set."""

    def __init__(self, loop: VirtualLoop, wall: float) -> None:
        self._loop = loop
        self._offset = wall - START

    def monotonic(self) -> float:
        return self._loop.now

    def time(self) -> float:
        return self._loop.now + self._offset


class InlineBroker:
    """A broker whose calls are made by the threads that run its loop, in turns; `restart` keeps its store."""

    def __init__(self, wall: float, keeping: RetentionPolicy) -> None:
        """Start at `wall`, in seconds since 1970."""
        self.lock = RLock()  #: held by the thread that acts on the loop or on a worker, but not while a node runs
        self.loop = VirtualLoop()  # type: ignore[abstract]  # it lacks files and sockets
        self.clock = InlineClock(self.loop, wall)
        self._keeping = keeping
        self._store = MemoryStore()
        self._calls: dict[Call, None] = {}
        self._start()

    def _start(self) -> None:
        with running(self.loop):
            self._store.open()
            epoch = self._store.take()
            # A process that holds the test does not fall silent, so that no lease ever runs out.
            scheduler = Scheduler(epoch, Limits(), Timing(lease=inf, original_lease=inf))
            now = self.clock.monotonic()
            scheduler.restore(self._store.live(), now, self.clock.time() - now)
            thread = CommitExecutor(few=0)
            self._broker = Broker(scheduler, self._store, keeping=self._keeping, thread=thread, clock=self.clock)
            memory = MemoryGuard(MEMORY, self._broker.memory_size, lambda: 0)
            config = WorkerConfig(heartbeat=inf)
            self._service = BrokerService(self._broker, config, RequestLimits(), memory, CallLimiter(STREAMS))
            self._running = self.loop.create_task(self._broker.run(), context=Context())
        self.settle()

    def locked(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function so that it holds the lock while it runs."""

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.lock:
                return function(*args, **kwargs)

        return call

    # --- calls ----------------------------------------------------------------------------------------

    def call(self, method: str, request: Any, on_reply: Callable[[bytes], None] | None = None) -> Call:
        """Begin a call of a method, by its full name; without a request it is one that takes many.

        Replies go to `on_reply`, which the loop calls, or into the call.
        """
        call = Call(self.loop, self._ended)
        if on_reply is not None:
            call.on_reply = on_reply
        handler = getattr(self._service, method.removeprefix(OURS), None) if method.startswith(OURS) else None
        if handler is None:
            call.error = rpc_error(grpc.StatusCode.UNIMPLEMENTED, f"an inline broker does not answer {method}")
            call.is_over = True
            return call
        with self.lock, running(self.loop):
            self._calls[call] = None
            call.start(handler, request)
        return call

    def _ended(self, call: Call) -> None:
        self._calls.pop(call, None)

    # --- time -----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let the broker do all that it can do now. Raises what has ended it."""
        with self.lock, running(self.loop):
            self.loop.run_ready(MOMENT)
        if self._running.done() and not self._running.cancelled() and (error := self._running.exception()) is not None:
            raise error

    @property
    def elapsed(self) -> float:
        """Seconds since the start of the world."""
        return self.loop.now - START

    def deadline(self, timeout: float | None) -> float:
        """Return the time at which a call is late."""
        return inf if timeout is None else self.loop.now + timeout

    @property
    def due_at(self) -> float:
        """The time at which the scheduler has something to do; infinity if it waits for others."""
        tick_at = self._broker.tick_at
        return inf if tick_at is None else tick_at

    @property
    def firing_at(self) -> float:
        """The time at which a schedule starts something next; infinity if there is none."""
        times = [upcoming.next for upcoming in self._broker.schedules.upcoming() if upcoming.next]
        return min(times) - self.clock.time() + self.loop.now if times else inf

    def move(self, now: float) -> None:
        """Set the time, at which all that has become due happens."""
        with self.lock:
            self.loop.now = max(self.loop.now, now)
            self._broker.commits.changed.set()
            self.settle()

    def keep(self, data: bytes | bytearray | memoryview) -> bytes:
        """Store a large value; return its SHA-256. The service takes it in a thread, which a world does not have."""
        with self.lock:
            return self._store.put_large(iter([bytes(data)]))[0]

    @property
    def taints(self) -> set[str]:
        """The taints of functions that have unfinished nodes."""
        return {queue.function.taint for queue in self._broker.scheduler.function_queues.values()} - {""}

    # --- ending ---------------------------------------------------------------------------------------

    def restart(self) -> None:
        """End the broker as a crash does, and start another one on its store. All calls break off."""
        self._end()
        self._start()

    def close(self) -> None:
        """End the broker; its store is lost."""
        self._end()

    def _end(self) -> None:
        calls = list(self._calls)
        with running(self.loop):
            self._running.cancel()
            for call in calls:
                call.break_off()
            for _ in range(3):  # a handler may begin something while it is cancelled
                self.loop.run_ready(MOMENT)
                for task in asyncio.all_tasks(self.loop):
                    task.cancel()
            self.loop.run_ready(MOMENT)
