"""An event loop on a simulated clock, and the machines that share it: each can be stopped, resumed or killed.

Nothing waits: when nothing is ready, the clock jumps to the next timer. Chance comes from the seed alone.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from asyncio import events
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple

from dagorama_testing.loop import START, VirtualLoop, closer

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

WALL = 1_700_000_000.0


#: Of one life: a usual one has a twentieth of it.
MOST_EVENTS = 500_000


class Livelock(Exception):
    """Something happens without end."""


class Host:
    """A machine: what runs on it stands still while it is stopped, and ends when it is killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stopped = False
        self.backlog: list[asyncio.Handle] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}  #: in their order
        self.free_at: dict[object, float] = {}  #: by executor: when its thread has done what it was given

    def __repr__(self) -> str:
        return self.name


NOWHERE = Host("the world")
HOST: ContextVar[Host] = ContextVar("host", default=NOWHERE)
WORLD = Context()


class SimulatedLoop(VirtualLoop):
    """A loop whose callbacks belong to hosts, and whose threads take their time."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.slow_disk = 1.0  #: factor on what calls in threads take
        self.events = 0

    def world_at(self, when: float, callback: Any, *args: Any) -> None:
        """Something that happens to hosts, whatever becomes of the one that caused it."""
        self.call_at(when, callback, *args, context=WORLD)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        host = context[HOST] if context is not None and HOST in context else HOST.get()
        host.tasks[task] = None
        task.add_done_callback(lambda task: host.tasks.pop(task, None), context=WORLD)
        return task

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """In a thread of the calling host: what is asked of one executor is done in turn, and takes its time."""
        host, future = HOST.get(), self.create_future()
        start = max(self.now, host.free_at.get(executor, 0.0))
        done_at = start + self.slow_disk * self.chance.uniform(0.00005, 0.002)
        back_at = host.free_at[executor] = done_at + self.slow_disk * self.chance.uniform(0.00001, 0.001)

        def do() -> None:
            if not host.alive:
                return
            try:
                outcome, error = func(*args), None
            except BaseException as raised:
                outcome, error = None, raised
            self.world_at(back_at, tell, outcome, error)

        def tell(outcome: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(outcome)

        # A thread goes on while the host's loop stands still, so that it is not the host's but the world's.
        self.world_at(done_at, do)
        return future

    # --- hosts ----------------------------------------------------------------------------------------

    def on(self, host: Host, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something on a host."""
        context = copy_context()
        context.run(HOST.set, host)
        return context.run(self.create_task, coroutine)

    def stop_host(self, host: Host) -> None:
        host.stopped = True

    def resume(self, host: Host) -> None:
        host.stopped = False
        self._ready.extend(host.backlog)
        host.backlog = []

    def kill(self, host: Host) -> None:
        """From now on nothing of it reaches anybody; what runs on it is cleared away."""
        host.alive = False
        self.resume(host)
        for task in list(host.tasks):
            task.cancel()

    # --- running --------------------------------------------------------------------------------------

    def run_until(self, deadline: float, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Let things happen; whether it was over before the deadline."""
        ready = self._ready
        while not is_over():
            self.events += 1
            if self.events > MOST_EVENTS:
                raise Livelock(f"it goes round in circles at {self.now:.4f}")
            if not ready:
                timer = self._take_timer(deadline, deadline)
                if timer is None:
                    self.now = max(self.now, deadline)
                    return is_over()
                self.now = max(self.now, timer.when())
                ready.append(timer)
                continue
            handle = ready.popleft()
            if handle._cancelled:
                continue
            host = handle._context.get(HOST, NOWHERE)  # type: ignore[attr-defined]  # the stubs leave it out
            if host.stopped:
                host.backlog.append(handle)
            else:
                handle._run()
        return True


class Clock:
    """What the programs see of time: one clock that never jumps, and a wall that may."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.wall = WALL - START

    def monotonic(self) -> float:
        return self.loop.now

    def time(self) -> float:
        return self.loop.now + self.wall


@contextmanager
def simulated(loop: SimulatedLoop, clock: Clock) -> Iterator[None]:
    """Whoever asks for the time, for chance or for the running loop gets the simulation's."""
    kept = time.monotonic, time.time, os.urandom, random.random, sys.get_asyncgen_hooks(), events._get_running_loop()
    time.monotonic, time.time = clock.monotonic, clock.time
    os.urandom, random.random = loop.chance.randbytes, loop.chance.random
    sys.set_asyncgen_hooks(finalizer=closer(loop))
    events._set_running_loop(loop)
    try:
        yield
    finally:
        time.monotonic, time.time, os.urandom, random.random = kept[:4]
        sys.set_asyncgen_hooks(*kept[4])
        events._set_running_loop(kept[5])
