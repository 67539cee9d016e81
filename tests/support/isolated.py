"""Nodes that fork, start threads, set handlers, timers and context, or close what is not theirs."""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import decimal
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn

from dagorama import DAGDefinition, cancelled, dagorama, put, resolve
from dagorama.errors import NotInInstance

HELD = {signal.SIGINT, signal.SIGTERM}
PATIENCE = 30.0  #: seconds

tenant = contextvars.ContextVar("tenant", default="nobody")
tenant.set("the module's")
decimal.getcontext().prec = 20  # there is a decimal context that all runs would share

asked: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
kept_pool = ThreadPoolExecutor(1)


def _serve() -> None:
    while True:
        function, future = asked.get()
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)


def ask_old_thread(function: Callable[[], Any]) -> Any:
    """Call it in a thread that was there before any node."""
    future: Future[Any] = Future()
    asked.put((function, future))
    return future.result(PATIENCE)


threading.Thread(target=_serve, daemon=True).start()


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- forks -----------------------------------------------------------------------------------------------


def leave_by(error: BaseException | None) -> None:
    if error is not None:
        raise error


#: what a fork does when its node's function goes on in it, and the exit code that Python ends it with
ENDS: dict[str, tuple[BaseException | None, int]] = {
    "returns": (None, 0),
    "raises": (ValueError("in the fork"), 1),
    "sys.exit()": (SystemExit(), 0),
    "sys.exit(7)": (SystemExit(7), 7),
    "sys.exit(text)": (SystemExit("a last word"), 1),
    "KeyboardInterrupt": (KeyboardInterrupt(), -signal.SIGINT),
}


def forked(end: str) -> int:
    """Fork, and go on in both processes: the fork leaves as `end` says, and the parent returns its exit code."""
    pid = os.fork()
    if pid == 0:
        leave_by(ENDS[end][0])
        return 0
    return exit_code(pid)


class Child(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        return 1


class Forks(DAGDefinition):
    """Each node returns what its forks ended with; `journal` gets a letter for each run of a node."""

    @dagorama().asyncfn
    async def entrypoint(self, journal: str) -> Any:
        forks: list[Any] = [self.fork(journal, end) for end in ENDS]
        forks += [await self.fork_async(journal, end) for end in ENDS]
        others = (
            self.fork_twice, self.daemon, self.in_a_thread, self.forkpty, self.preexec, self.process, self.pool,
            self.refused,
        )  # fmt: skip
        forks += [method(journal) for method in others]
        forks.append(await self.async_that_awaits(journal))
        return self.together(forks, self.pid(journal))

    @dagorama().syncfn
    def together(self, codes: list[Any], pid: int) -> tuple[list[Any], bool]:
        return codes, pid == os.getpid()

    @dagorama().syncfn
    def pid(self, journal: str) -> int:
        note(journal)
        return os.getpid()

    @dagorama().syncfn
    def fork(self, journal: str, end: str) -> int:
        note(journal)
        return forked(end)

    @dagorama().asyncfn
    async def fork_async(self, journal: str, end: str) -> int:
        note(journal)
        return forked(end)

    @dagorama().syncfn
    def fork_twice(self, journal: str) -> int:
        note(journal)
        pid = os.fork()
        if pid == 0:
            second = os.fork()
            sys.exit(exit_code(second) + 4 if second else 4)
        return exit_code(pid)

    @dagorama().syncfn
    def daemon(self, journal: str) -> bytes:
        """The usual double fork; the daemon closes everything, says a word and returns."""
        note(journal)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            os.write(write, b"alive")
            os.closerange(3, 256)
            return b""
        os.close(write)
        exit_code(pid)
        with open(read, "rb") as said:
            return said.read()

    @dagorama().syncfn
    def in_a_thread(self, journal: str) -> int:
        note(journal)
        pids: list[int] = []

        def fork() -> None:
            pids.append(os.fork())
            if not pids[0]:
                os._exit(0)  # if this thread returned, threads that grpc restarts in forks would be left

        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        return exit_code(pids[0])

    @dagorama().syncfn
    def forkpty(self, journal: str) -> int:
        note(journal)
        pid, terminal = os.forkpty()
        if pid == 0:
            sys.exit(6)
        code = exit_code(pid)
        os.close(terminal)
        return code

    @dagorama().syncfn
    def preexec(self, journal: str) -> int:
        note(journal)
        return subprocess.run([sys.executable, "-c", "raise SystemExit(8)"], preexec_fn=os.getpid).returncode

    @dagorama().syncfn
    def process(self, journal: str) -> int | None:
        note(journal)
        process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(9,))
        process.start()
        process.join()
        return process.exitcode

    @dagorama().syncfn
    def pool(self, journal: str) -> list[int]:
        note(journal)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(abs, [-1, -2, -3])

    @dagorama().syncfn
    def refused(self, journal: str) -> int:
        """Count the calls that are refused in a fork, because their results would be lost."""
        note(journal)
        self.pid(os.devnull)
        calls: list[Callable[[], Any]] = [lambda: self.pid(os.devnull), Child(), lambda: put([1])]
        pid = os.fork()
        if pid == 0:
            sys.exit(sum(map(is_refused, calls)))
        return exit_code(pid)

    @dagorama().asyncfn
    async def async_that_awaits(self, journal: str) -> int:
        note(journal)
        pid = os.fork()
        await asyncio.sleep(0)
        return exit_code(pid)


#: what the nodes of Forks return, in order
FORKED: list[Any] = [*[code for _, code in ENDS.values()] * 2, 8, b"alive", 0, 6, 8, 9, [1, 2, 3], 3, 1]


def note(journal: str) -> None:
    with open(journal, "ab", buffering=0) as file:
        file.write(b"x")


def is_refused(call: Callable[[], Any]) -> bool:
    try:
        call()
    except NotInInstance:
        return True
    return False


# --- signals ---------------------------------------------------------------------------------------------


class Signals(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int, threads: int) -> list[int]:
        """Fork and kill at once, in several threads; how the forks ended."""
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda _: fork_and_kill(number), range(10 * threads)))

    @dagorama().syncfn
    def masks(self) -> bool:
        """Whether a fork has the mask that its node had, and the node has it still."""
        with masked({signal.SIGTERM, signal.SIGUSR1}) as wanted:
            pid = os.fork()
            if pid == 0:
                os._exit(signal.pthread_sigmask(signal.SIG_BLOCK, ()) == wanted)
            return exit_code(pid) == 1 and signal.pthread_sigmask(signal.SIG_BLOCK, ()) == wanted

    @dagorama().syncfn
    def own_handler(self) -> int:
        """A fork inherits the handler that its node has set."""
        signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
        return fork_and_kill(signal.SIGTERM)


def fork_and_kill(number: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            threading.Event().wait(PATIENCE)
        except KeyboardInterrupt:  # else the thread of a pool would catch it
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    os.kill(pid, number)
    return exit_code(pid)


@contextmanager
def masked(signals: set[signal.Signals]) -> Iterator[set[int | signal.Signals]]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield before | signals
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- what is left behind -----------------------------------------------------------------------------------


class Leaves(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> list[Any]:
        return [self.state(), self.change(), self.state(), self.change(), self.state()]

    @dagorama().syncfn
    def change(self) -> None:
        tenant.set("alice")
        decimal.getcontext().prec = 3
        decimal.getcontext().traps[decimal.Inexact] = True
        signal.setitimer(signal.ITIMER_VIRTUAL, 1000, 1)
        signal.signal(signal.SIGALRM, fail)
        signal.signal(signal.SIGUSR1, fail)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.alarm(1000)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        os.chdir("/")
        os.chdir("/tmp")

    @dagorama().syncfn
    def state(self) -> list[Any]:
        context = decimal.getcontext()
        timers = [signal.getitimer(which) for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL)]
        handlers = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGUSR1)]
        ignores = signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        folder = os.getcwd()
        return [tenant.get(), context.prec, context.traps[decimal.Inexact], timers, handlers, ignores, mask, folder]


#: what `state` is for each node
UNCHANGED = ["the module's", 20, False, [(0.0, 0.0)] * 2, [signal.SIG_DFL] * 2, False, set(), os.getcwd()]


def fail(*_: object) -> NoReturn:
    raise RuntimeError("a handler of another node")


# --- threads -----------------------------------------------------------------------------------------------


def in_thread(function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def in_pool(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def in_raw_thread(function: Callable[[], Any]) -> Any:
    future: Future[Any] = Future()
    _thread.start_new_thread(lambda: future.set_result(function()), ())
    return future.result(PATIENCE)


def in_timer(function: Callable[[], Any]) -> Any:
    future: Future[Any] = Future()
    threading.Timer(0, lambda: future.set_result(function())).start()
    return future.result(PATIENCE)


#: a thread that no node has started, which may be the caller's own if it does more than running nodes
OLD_THREAD = "thread from before"
#: ways for a sync node to call something in another thread
WAYS: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "thread": in_thread,
    "thread of a thread": lambda function: in_thread(lambda: in_thread(function)),
    "timer": in_timer,
    "pool": in_pool,
    "pool that stays": lambda function: kept_pool.submit(function).result(),
    "raw thread": in_raw_thread,
    OLD_THREAD: ask_old_thread,
    "loop": lambda function: asyncio.run(asyncio.to_thread(function)),
}


class Threads(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, way: str, fails: bool) -> Any:
        """Make an instance in another thread, and return its promise or fail."""
        _, promise = WAYS[way](Child())
        if fails:
            raise ValueError("what this run has made is dropped")
        return promise

    @dagorama().asyncfn
    async def from_async(self, way: str) -> Any:
        function = Child()
        if way == "to_thread":
            _, promise = await asyncio.to_thread(function)
        elif way == "executor":
            _, promise = await asyncio.get_running_loop().run_in_executor(None, function)
        else:
            _, promise = WAYS[way](function)
        return promise

    @dagorama().syncfn
    def is_inside(self, way: str) -> list[bool]:
        """Whether another thread knows that it may not wait, and that nothing was cancelled."""
        instance, promise = Child()()

        def wait() -> bool:
            try:
                resolve(instance, promise, timeout=None)  # dagorama: ignore[DAG007]  # its refusal is the subject
            except Exception as error:
                return "return the promise" in str(error)
            return False

        return [WAYS[way](wait), not WAYS[way](cancelled)]

    @dagorama().syncfn
    def leave_a_thread(self) -> None:
        """It goes on after this node, and asks for what `let_go` then wants."""
        threading.Thread(target=lambda: outlived.put(is_refused(gate.get(timeout=PATIENCE))), daemon=True).start()

    @dagorama().syncfn
    def let_go(self, before: Any) -> bool:
        """Whether a thread of a former node is not taken for one of this node."""
        gate.put(Child())
        return outlived.get(timeout=PATIENCE)

    @dagorama().syncfn
    def many(self, threads: int) -> Any:
        """Call from many threads at once."""
        barrier = threading.Barrier(threads)

        def call(number: int) -> Any:
            barrier.wait()
            return [self.number(number * 100 + each) for each in range(5)]

        with ThreadPoolExecutor(threads) as pool:
            return self.total(list(pool.map(call, range(threads))))

    @dagorama().syncfn
    def number(self, number: int) -> int:
        return number

    @dagorama().syncfn
    def total(self, numbers: list[list[int]]) -> int:
        return sum(map(sum, numbers))

    @dagorama().asyncfn
    async def overlapping(self) -> str:
        """Two of these run at once; a thread that neither has started asks."""
        await both.wait()
        try:
            ask_old_thread(Child())
        except NotInInstance as error:
            return str(error)
        finally:
            await both.wait()
        return ""


both = asyncio.Barrier(2)
gate: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
outlived: queue.SimpleQueue[bool] = queue.SimpleQueue()


# --- descriptors -------------------------------------------------------------------------------------------


class Closes(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        return os.getpid()

    @dagorama().syncfn
    def close_all(self, journal: str) -> None:
        note(journal)
        os.closerange(3, 256)

    @dagorama().syncfn
    def close_and_open(self, journal: str) -> None:
        note(journal)
        os.closerange(3, 256)
        for _ in range(64):
            os.pipe()

    @dagorama().syncfn
    def close_and_go_on(self, journal: str) -> None:
        note(journal)
        os.closerange(3, 256)
        threading.Event().wait(0.1)

    @dagorama().asyncfn
    async def close_async(self, journal: str) -> None:
        note(journal)
        os.closerange(3, 256)
