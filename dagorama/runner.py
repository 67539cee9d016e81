"""Run workers from Python: in processes of their own within a `with` block, or in the calling process."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from select import select
from time import monotonic
from weakref import WeakSet, finalize

from dagorama.api.contract import MOST_SLOTS
from dagorama.client.connection import is_inline
from dagorama.client.explain import reporting
from dagorama.client.timeouts import checked_timeout
from dagorama.errors import CodeMismatchException as CodeMismatchException
from dagorama.errors import WorkersNotStarted
from dagorama.graph import shipping
from dagorama.settings import WorkerOptions, local_socket, shared_files, traces
from dagorama.values.signing import keyring
from dagorama.worker.launcher import launch

STOPPING = 8.0  #: seconds that workers get to stop; then they are killed
LONGEST_SELECT = 86_400.0  #: seconds; the select() of gevent uses poll(), which has 32 bits for milliseconds
FOLLOWING = 2.0  #: seconds that the children of a killed supervisor get to end


class LaunchedWorkers:
    """A launched supervisor and its children: the state that they have reported, and the pipe to them.

    They belong to the process that launched them. In a fork of it `stop` does nothing, and other methods raise.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._process, self._lines = launch(options)
        self._lock = threading.Lock()
        self._defining = threading.Lock()
        self._defined = 0  #: parcels that the supervisor has received
        self.forked = False  #: this process is a fork of the one that launched them
        self.over = False  #: all its processes have ended
        self._ended_by_us: set[int] = set()
        self._slots = options.concurrency
        self._is_ready = False  #: one of its children can run nodes
        self._failures: list[str] = []  #: why it stops, as it has reported
        self.pids: dict[int, int] = {}
        self.exit_codes: dict[int, int] = {}
        _all.add(self)
        # The handles may be used after the block: the pipe is closed when the last of them is gone.
        finalize(self, self._lines.close).atexit = False

    def forget(self) -> None:
        """Close the pipe in a fork, so that it breaks when the parent ends."""
        self.forked = True
        self._lines.close()

    def _check_process(self) -> None:
        if self.forked:
            raise RuntimeError(
                "these workers belong to the process that launched them, and this process is a fork of it: call this "
                "there, or launch other workers here"
            )

    def hear(self, timeout: float | None) -> bool:
        """Wait for messages and note them; return False if there are none in time, or all processes have ended."""
        self._check_process()
        if self.over or not select([self._lines], [], [], timeout)[0]:
            return False
        with self._lock:
            if self.over or not select([self._lines], [], [], 0)[0]:
                return not self.over  # another thread has read it
            lines = self._lines.read()
            for message in lines or ():
                self._note(*message.words)
            self.over = lines is None
            return not self.over

    def _note(self, what: str, *more: str) -> None:
        if what == "ready":
            self._is_ready = not self._failures
        elif what == "failed":
            self._failures += more
        elif what == "defined":
            self._defined += 1
        else:
            slot, number = map(int, more)
            if what == "started":
                self.pids[slot] = number
            else:
                self.exit_codes[slot] = -signal.SIGTERM if slot in self._ended_by_us else number

    @property
    def is_open(self) -> bool:
        """Whether there are workers that can receive classes."""
        return not self.over

    def define(self, parcel: bytes) -> None:
        """Send classes to the workers; they arrive before all nodes that are granted after this returns."""
        with self._defining:
            wanted = self._defined + 1
            self._lines.say("define", payload=parcel)
            while self._defined < wanted and not self.over:
                self.hear(None)

    def wait_until_ready(self) -> None:
        """Return when a child can run nodes, even if there is no broker yet; raise WorkersNotStarted."""
        while not (self._is_ready or self._failures) and self.hear(None):
            pass
        if self._is_ready:
            return
        code = 0 if self._failures else self._process.wait()
        if self._failures or code:
            why = "; ".join(self._failures) or f"their supervisor ended with exit code {code}; see what it printed"
            raise WorkersNotStarted(f"the workers could not start: {why}")

    def how_ended(self) -> str:
        """Return a sentence if all its workers have ended; empty otherwise, and in a fork of the launching process."""
        if self.forked:
            return ""
        self.hear_all()
        if not self.over and len(self.exit_codes) < self._slots:
            return ""
        codes = sorted({code for slot in range(self._slots) if (code := self.exit_code(slot)) is not None})
        why = "; ".join(self._failures) or f"with exit code {', '.join(map(str, codes))}"
        return f"the workers that launch_workers() started have ended: {why}"

    def hear_all(self) -> None:
        """Note all messages that have arrived."""
        while self.hear(0):
            pass

    def exit_code(self, slot: int) -> int | None:
        """Return the exit code of a worker, or the supervisor's if none was reported; None while it lives."""
        if slot in self.exit_codes or not self.over:
            return self.exit_codes.get(slot)
        return self._process.wait()

    def end(self, slot: int) -> None:
        """Stop one worker; its nodes return to the queue, uncounted."""
        self._check_process()
        self._ended_by_us.add(slot)
        self._lines.say("end", slot)

    def stop(self) -> None:
        """Stop the supervisor and its children; all of them have ended when this returns."""
        if self.forked:
            return
        self._lines.say("stop")
        try:
            self._hear_out(STOPPING)
        finally:
            self._process.kill()  # no effect if it has ended already
            # All of its processes hold the other end of the pipe: this waits for the children of a killed supervisor.
            self._hear_out(FOLLOWING)
            self._process.wait()

    def _hear_out(self, seconds: float) -> None:
        """Read messages until the other end is closed, for at most `seconds`."""
        until = monotonic() + seconds
        while not self.over and monotonic() < until:
            self.hear(max(0.0, until - monotonic()))


_all: WeakSet[LaunchedWorkers] = WeakSet()


def _forget_all() -> None:
    for launched in list(_all):
        launched.forget()


os.register_at_fork(after_in_child=_forget_all)


class WorkerHandle:
    """One worker process of `launch_workers`, with the methods of a `multiprocessing.Process`."""

    def __init__(self, launched: LaunchedWorkers, slot: int) -> None:
        self._launched = launched
        self._slot = slot

    @property
    def pid(self) -> int | None:
        """The process ID; it changes when the process dies while it runs a node, and is replaced."""
        self._launched.hear_all()
        while self._slot not in self._launched.pids and self._launched.hear(None):
            pass
        return self._launched.pids.get(self._slot)

    @property
    def exitcode(self) -> int | None:
        """The exit code: None while it lives, minus the number of the signal that ended it.

        It is 3 if the worker has stopped on completion although there are nodes that no connected worker may run.
        """
        self._launched.hear_all()
        return self._launched.exit_code(self._slot)

    def is_alive(self) -> bool:
        return self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, for at most `timeout` seconds."""
        timeout = checked_timeout(timeout)
        until = None if timeout is None else monotonic() + timeout
        while self.exitcode is None:
            left = None if until is None else until - monotonic()
            if left is not None and left <= 0:
                return
            self._launched.hear(None if left is None else min(left, LONGEST_SELECT))

    def terminate(self) -> None:
        """Stop it now; its nodes return to the queue, uncounted, and the other workers go on."""
        self._launched.end(self._slot)

    def __repr__(self) -> str:
        if self._launched.forked:
            return f"<worker {self._slot} of another process>"
        state = "alive" if self.is_alive() else f"ended with {self.exitcode}"
        return f"<worker {self._slot}, {state}>"


def execute_worker(
    exclude_queues: Sequence[str] | None = None,
    include_queues: Sequence[str] | None = None,
    queue_tolerations: Sequence[str] | None = None,
    infinite_loop: bool = True,
    catch_exceptions: bool = True,
) -> None:
    """Run nodes in this process: async nodes overlap in a thread, sync nodes run here one after the other.

    Without `infinite_loop` it returns when there are no nodes that it may run now. Without `catch_exceptions` it raises
    the exception of the first failing node, after it has reported it to the broker, and CodeMismatchException if a node
    was created with other code. Raises BrokerError if the broker refuses this worker, or without `infinite_loop` if
    there is none.

    A sync node cannot be stopped here: it runs past its `timeout`, and past the grace period of a cancellation, which
    `dagorama.cancelled()` reports to it. Async nodes are stopped as in other workers.
    """
    from dagorama.worker.in_process.worker import LocalWorker

    options = _local_options(exclude_queues, include_queues, queue_tolerations)
    LocalWorker(options, stay=infinite_loop, raise_failures=not catch_exceptions).run()


async def execute_worker_async(
    exclude_queues: Sequence[str] | None = None,
    include_queues: Sequence[str] | None = None,
    queue_tolerations: Sequence[str] | None = None,
    infinite_loop: bool = True,
    catch_exceptions: bool = True,
) -> None:
    """Run nodes as `execute_worker` does, in the event loop of the caller, which sync nodes block."""
    from dagorama.worker.in_process.worker import LocalWorker

    options = _local_options(exclude_queues, include_queues, queue_tolerations)
    await LocalWorker(options, stay=infinite_loop, raise_failures=not catch_exceptions).run_async()


def _local_options(
    exclude: Sequence[str] | None, include: Sequence[str] | None, tolerations: Sequence[str] | None
) -> WorkerOptions:
    return WorkerOptions(
        exclude_queues=tuple(exclude or ()), include_queues=tuple(include or ()), tolerations=tuple(tolerations or ())
    )


@contextmanager
def launch_workers(n: int = 1, exit_on_completion: bool = False) -> Iterator[list[WorkerHandle]]:
    """Run `n` workers in processes of their own until the block ends, for the broker that the environment names.

    They get the definitions of this process from `__main__` and local scopes, and registered definitions. With
    `exit_on_completion` they stop when there are no nodes that they may run, and none that could lead to such nodes; if
    there are nodes that no connected worker may run, they print that to stderr and their exit code is 3.

    It does not wait for the broker. Raises WorkersNotStarted, with the reason, if the workers cannot start.
    """
    if not isinstance(n, int):
        raise TypeError(f"launch_workers takes a number of workers, not {type(n).__name__}")
    if not 1 <= n <= MOST_SLOTS:
        raise ValueError(f"launch_workers needs at least one worker and at most {MOST_SLOTS:,}, not {n}")
    if is_inline():
        raise WorkersNotStarted("an inline world has its own workers: call world.run() instead of launch_workers()")
    keyring()  # raises here if there is none
    shared_files()
    local_socket()
    traces()
    shipment = shipping.pack()
    options = WorkerOptions(concurrency=n, exit_on_completion=exit_on_completion, definitions=pickle.dumps(shipment))
    launched = LaunchedWorkers(options)
    shipping.opened(launched, shipment)
    try:
        launched.wait_until_ready()
        with reporting(launched.how_ended):
            yield [WorkerHandle(launched, slot) for slot in range(n)]
    finally:
        launched.stop()
        shipping.closed(launched)
