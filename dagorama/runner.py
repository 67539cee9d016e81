"""Workers from Python: in processes of their own for the length of a `with` block, or in the calling process."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from select import select
from time import monotonic
from weakref import WeakSet

from dagorama.client.explain import reporting
from dagorama.client.timeouts import checked_timeout
from dagorama.errors import CodeMismatchException as CodeMismatchException
from dagorama.errors import WorkersNotStarted
from dagorama.graph import shipping
from dagorama.settings import WorkerOptions, shared_files
from dagorama.values.signing import keyring
from dagorama.worker.launcher import launch

STOPPING = 8.0  #: seconds in which told workers are gone; then they are killed
LONGEST_SELECT = 86_400.0  #: seconds; poll() under select, as gevent has it, counts milliseconds in 32 bits
FOLLOWING = 2.0  #: seconds for the children of a supervisor that was killed


class LaunchedWorkers:
    """A supervisor and its children, as who launched them sees them: what they said so far, and the line to them.

    They belong to the process that launched them. In a fork of it `stop` does nothing, and nothing else can be asked.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._process, self._lines = launch(options)
        self._lock = threading.Lock()
        self._defining = threading.Lock()
        self._defined = 0  #: parcels that the supervisor has taken
        self.forked = False  #: this process is a fork of the one that launched them
        self.over = False  #: the last of its processes has gone
        self._ended_by_us: set[int] = set()
        self._slots = options.concurrency
        self._is_ready = False  #: a child of it can run nodes
        self._failures: list[str] = []  #: why it leaves, in its own words
        self.pids: dict[int, int] = {}
        self.exit_codes: dict[int, int] = {}
        _all.add(self)

    def forget(self) -> None:
        """In a fork: the line is the parent's, and breaks when that one is gone."""
        self.forked = True
        self._lines.close()

    def _check_process(self) -> None:
        if self.forked:
            raise RuntimeError(
                "these workers belong to the process that launched them, and this one was forked from it: ask there, "
                "or launch others here"
            )

    def hear(self, timeout: float | None) -> bool:
        """Wait for news and note it; False when there was none in time, or there will be none any more."""
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
        """Whether there are workers that can be sent classes."""
        return not self.over

    def define(self, parcel: bytes) -> None:
        """Send classes to the workers; they have them before any node that is granted after this returns."""
        with self._defining:
            wanted = self._defined + 1
            self._lines.say("define", payload=parcel)
            while self._defined < wanted and not self.over:
                self.hear(None)

    def wait_until_ready(self) -> None:
        """Return when a child can run nodes, whether or not there is a broker yet. Raises WorkersNotStarted."""
        while not (self._is_ready or self._failures) and self.hear(None):
            pass
        if self._is_ready:
            return
        why = "; ".join(self._failures)
        if not why and (code := self._process.wait()):
            why = f"their supervisor ended with exit code {code}; see what it printed"
        if why:
            raise WorkersNotStarted(f"the workers could not start: {why}")

    def how_ended(self) -> str:
        """A sentence, once all its workers have ended; empty before, and in a fork of the launching process."""
        if self.forked:
            return ""
        self.hear_all()
        if not self.over and len(self.exit_codes) < self._slots:
            return ""
        codes = sorted({code for slot in range(self._slots) if (code := self.exit_code(slot)) is not None})
        why = "; ".join(self._failures) or f"with exit code {', '.join(map(str, codes))}"
        return f"the workers that launch_workers() started have ended: {why}"

    def hear_all(self) -> None:
        while self.hear(0):
            pass

    def exit_code(self, slot: int) -> int | None:
        """None while its worker lives; where the supervisor ended without a word, its own exit code."""
        if slot in self.exit_codes or not self.over:
            return self.exit_codes.get(slot)
        return self._process.wait()

    def end(self, slot: int) -> None:
        self._check_process()
        self._ended_by_us.add(slot)
        self._lines.say("end", slot)

    def stop(self) -> None:
        """All of it; nothing is left when this returns."""
        if self.forked:
            return
        self._lines.say("stop")
        try:
            self._hear_out(STOPPING)
        finally:
            self._process.kill()  # no more than a word where it has gone already
            # All of its processes hold the other end: where it was killed, this waits for its children to follow.
            self._hear_out(FOLLOWING)
            self._process.wait()

    def _hear_out(self, seconds: float) -> None:
        """Until the other end is closed, at most so long."""
        until = monotonic() + seconds
        while not self.over and monotonic() < until:
            self.hear(max(0.0, until - monotonic()))


_all: WeakSet[LaunchedWorkers] = WeakSet()


def _forget_all() -> None:
    for launched in list(_all):
        launched.forget()


os.register_at_fork(after_in_child=_forget_all)


class WorkerHandle:
    """One worker process of `launch_workers`, to be used as a `multiprocessing.Process` is."""

    def __init__(self, launched: LaunchedWorkers, slot: int) -> None:
        self._launched = launched
        self._slot = slot

    @property
    def pid(self) -> int | None:
        """The process id; another one after the process died while it ran a node, and was replaced."""
        self._launched.hear_all()
        while self._slot not in self._launched.pids and self._launched.hear(None):
            pass
        return self._launched.pids.get(self._slot)

    @property
    def exitcode(self) -> int | None:
        """None while it lives; minus the signal's number if a signal ended it; 3 if it left on completion although
        nodes are left that no connected worker may run."""
        self._launched.hear_all()
        return self._launched.exit_code(self._slot)

    def is_alive(self) -> bool:
        return self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, at most `timeout` seconds."""
        timeout = checked_timeout(timeout)
        until = None if timeout is None else monotonic() + timeout
        while self.exitcode is None:
            left = None if until is None else until - monotonic()
            if left is not None and left <= 0:
                return
            self._launched.hear(None if left is None else min(left, LONGEST_SELECT))

    def terminate(self) -> None:
        """End it now; what it runs goes back to the broker uncounted, and the other workers stay."""
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
    """Run nodes in this process: async ones overlap in a thread, the others run here, one after the other.

    Without `infinite_loop` it returns when nothing is left that it may run now. Without `catch_exceptions` it
    raises what the first failing node raised, once the broker knows, and CodeMismatchException where a node was
    made by other code. Raises BrokerError where the broker refuses it, or is not there and nobody said to stay.

    A sync node cannot be stopped here: it runs past its `timeout`, and past the grace after it was cancelled, of
    which `dagorama.cancelled()` tells it. Async nodes are stopped as anywhere.
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
    """The same inside the caller's event loop: async nodes are awaited on it, the others hold it up."""
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
    """`n` workers beside this process, for the broker that the environment names; gone when the block ends.

    They get this process's definitions from `__main__` and local scopes, and those that were registered. With
    `exit_on_completion` they leave when nothing is left that they may run and nothing that could lead to it; if nodes
    are left that no connected worker may run, they say so on stderr and their exit code is 3.

    It does not wait for the broker. Raises WorkersNotStarted if they cannot start, and then says why.
    """
    if not isinstance(n, int):
        raise TypeError(f"launch_workers takes a number of workers, not {type(n).__name__}")
    if n < 1:
        raise ValueError(f"launch_workers needs at least one worker, not {n}")
    keyring()  # where there is none to be had, it is said here
    shared_files()
    shipment = shipping.pack()
    options = WorkerOptions(
        concurrency=n, exit_on_completion=exit_on_completion, definitions=pickle.dumps(shipment)
    )
    launched = LaunchedWorkers(options)
    shipping.opened(launched, shipment)
    try:
        launched.wait_until_ready()
        with reporting(launched.how_ended):
            yield [WorkerHandle(launched, slot) for slot in range(n)]
    finally:
        launched.stop()
