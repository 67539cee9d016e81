"""Drives a world: broker and workers take turns in this thread, and time moves when nothing else is left to do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from math import inf

from dagorama_testing.broker import InlineBroker
from dagorama_testing.loop import running
from dagorama_testing.worker import InlineWorker

Tasks = set["asyncio.Task[int]"]


class Driver:
    """The broker and the workers of a world."""

    def __init__(self, broker: InlineBroker) -> None:
        self.broker = broker
        self.workers: list[InlineWorker] = []
        self.nodes = 0  #: attempts that were begun
        self._is_closed = False
        self._driving = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None  # of async nodes
        self._own_loop: asyncio.AbstractEventLoop | None = None

    # --- driving --------------------------------------------------------------------------------------

    def drive(self, is_over: Callable[[], bool], until: float = inf, linger: float = 0.0) -> bool:
        """Run nodes, and let time pass up to `until`, until it is over or nothing more can happen; return which.

        `linger`: seconds to let pass when nothing is due by the scheduler, for calls that look at it from time to time.
        """
        with self._driving:
            for tasks in self._steps(is_over, until, linger):
                with running(None):
                    self._own().run_until_complete(asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))
            return is_over()

    async def adrive(self, is_over: Callable[[], bool], until: float = inf) -> bool:
        """Drive as `drive` does; async nodes run on the running loop, and other tasks of it run meanwhile."""
        self._loop = asyncio.get_running_loop()
        try:
            for tasks in self._steps(is_over, until, 0.0):
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._loop = None
        return is_over()

    def check_open(self) -> None:
        """Raise RuntimeError if the world has ended."""
        if self._is_closed:
            raise RuntimeError("this world has ended: act on it within its `with inline()` block")

    def _own(self) -> asyncio.AbstractEventLoop:
        if self._own_loop is None:
            self._own_loop = asyncio.new_event_loop()
        return self._own_loop

    def _loop_of_nodes(self) -> asyncio.AbstractEventLoop:
        return self._loop or self._own()

    def _steps(self, is_over: Callable[[], bool], until: float, linger: float) -> Iterator[Tasks]:
        """Do all there is to do, step by step; yield async nodes to wait for."""
        broker, rested_at = self.broker, None
        self.check_open()
        self._connect()
        while True:
            broker.settle()
            self._raise_interruption()
            if is_over():
                self._flush()
                return
            if self._run_one() or self._tolerate():
                continue
            if tasks := self._tasks():
                yield tasks
                continue
            with broker.lock:
                if is_over() or any(worker.has_nodes for worker in self.workers):
                    continue  # another thread has made a call since
                due = min([broker.due_at, *(worker.due_at for worker in self.workers)])
                if due == inf and linger:
                    rested_at = broker.loop.now if rested_at is None else rested_at
                    due = self._next_look(rested_at + linger)
                if min(due, until) < inf:  # time passes anyway; schedules alone would let it pass forever
                    due = min(due, broker.firing_at)
                if due > until or due == inf:
                    if until == inf or broker.loop.now >= until:
                        return
                    due = until
                broker.move(max(due, broker.loop.now))
                for worker in self.workers:
                    worker.time_out()

    def _connect(self) -> None:
        """Connect workers that are not: first now, so that what was submitted before is granted in order."""
        with self.broker.lock:
            for worker in self.workers:
                if not worker.is_connected:
                    worker.connect()

    def _flush(self) -> None:
        """Send the results of nodes that have run."""
        for worker in self.workers:
            worker.flush()
        self.broker.settle()

    def _next_look(self, until: float) -> float:
        timer = self.broker.loop.next_timer
        return inf if timer is None or timer > until else timer

    def _run_one(self) -> bool:
        """Run the next node of a worker, or drop one that was taken back. Return whether there was one."""
        worker = next((worker for worker in self.workers if worker.has_nodes), None)
        if worker is None:
            return False
        self.nodes += worker.run_one(self._loop_of_nodes)
        return True

    def _tolerate(self) -> bool:
        """Let workers that tolerate everything learn new taints. Return whether there were any."""
        with self.broker.lock:
            taints = self.broker.taints
            learned = [worker.tolerate(taints) for worker in self.workers] if taints else []
            return any(learned)

    def _tasks(self) -> Tasks:
        return {task for worker in self.workers for task in worker.tasks}

    def _raise_interruption(self) -> None:
        for worker in self.workers:
            if (error := worker.executor.interruption) is not None:
                worker.executor.interruption = None
                raise error

    # --- calls of clients -----------------------------------------------------------------------------

    def answer(self, is_over: Callable[[], bool], until: float) -> bool:
        """Let the broker answer a call, without running nodes; return whether it has by then."""
        broker = self.broker
        with broker.lock:
            broker.settle()
            while not is_over():
                timer = broker.loop.next_timer
                if timer is None or timer > until:
                    return False
                broker.move(timer)
            return True

    def restart_broker(self) -> None:
        """Crash the broker and start it again on its store; the workers connect again with what they hold."""
        self.check_open()
        with self.broker.lock:
            self.broker.restart()
            for worker in self.workers:
                worker.connect()
            self.broker.settle()

    def close(self) -> None:
        """End workers and broker."""
        self._is_closed = True
        for worker in self.workers:
            worker.close()
        self.broker.close()
        if self._own_loop is not None:
            with running(None):
                if tasks := self._tasks():
                    self._own_loop.run_until_complete(asyncio.wait(tasks))
                self._own_loop.close()
