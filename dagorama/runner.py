"""Workers from Python: in processes of their own for the length of a `with` block, or in the calling process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from select import select
from time import monotonic

from dagorama.errors import CodeMismatchException as CodeMismatchException
from dagorama.serializer import pack_definitions
from dagorama.settings import shared_files
from dagorama.signing import keyring
from dagorama.timeouts import checked_timeout
from dagorama.worker.launched import launch
from dagorama.worker.options import WorkerOptions

STOPPING = 8.0  #: seconds in which told workers are gone; then they are killed
LONGEST_SELECT = 86_400.0  #: seconds; poll() under select, as gevent has it, counts milliseconds in 32 bits
FOLLOWING = 2.0  #: seconds for the children of a supervisor that was killed


class LaunchedWorkers:
    """A supervisor and its children, as who launched them sees them: what they said so far, and the line to them."""

    def __init__(self, options: WorkerOptions) -> None:
        self._process, self._lines = launch(options)
        self._lock = threading.Lock()
        self.over = False  #: the last of its processes has gone
        self._ended_by_us: set[int] = set()
        self.pids: dict[int, int] = {}
        self.exit_codes: dict[int, int] = {}

    def hear(self, timeout: float | None) -> bool:
        """Wait for news and note it; False when there was none in time, or there will be none any more."""
        if self.over or not select([self._lines], [], [], timeout)[0]:
            return False
        with self._lock:
            if self.over or not select([self._lines], [], [], 0)[0]:
                return not self.over  # another thread has read it
            lines = self._lines.read()
            for what, slot, number in lines or ():
                self._note(what, int(slot), int(number))
            self.over = lines is None
            return not self.over

    def _note(self, what: str, slot: int, number: int) -> None:
        if what == "started":
            self.pids[slot] = number
        else:
            self.exit_codes[slot] = -signal.SIGTERM if slot in self._ended_by_us else number

    def hear_all(self) -> None:
        while self.hear(0):
            pass

    def exit_code(self, slot: int) -> int | None:
        """None while its worker lives; where the supervisor ended without a word, its own exit code."""
        if slot in self.exit_codes or not self.over:
            return self.exit_codes.get(slot)
        return self._process.wait()

    def end(self, slot: int) -> None:
        self._ended_by_us.add(slot)
        self._lines.say("end", slot)

    def stop(self) -> None:
        """All of it; nothing is left when this returns."""
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
        """None while it lives; minus the signal's number where a signal ended it."""
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
    from dagorama.worker.local import LocalWorker

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
    from dagorama.worker.local import LocalWorker

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
    `exit_on_completion` they leave when nothing is left that they may run and nothing that could lead to it.
    """
    if n < 1:
        raise ValueError(f"launch_workers needs at least one worker, not {n}")
    keyring()  # where there is none to be had, it is said here
    shared_files()
    options = WorkerOptions(
        concurrency=n, exit_on_completion=exit_on_completion, definitions=pack_definitions()
    )
    launched = LaunchedWorkers(options)
    try:
        yield [WorkerHandle(launched, slot) for slot in range(n)]
    finally:
        launched.stop()
