"""The fork server: a process with one thread, no event loop, no grpc and no user code, so that forking is safe.

The supervisor forks it before it imports grpc, and requests children over a socket. The fork server returns one end of
each child's socket, reaps the children and reports how they exited. When the supervisor exits for any reason, the fork
server kills the children and exits.
"""

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from select import poll
from struct import Struct
from traceback import print_exc
from types import FrameType
from typing import NamedTuple, NoReturn

from dagorama.worker.dump_file import STACK_SIGNAL
from dagorama.worker.frames import CUT_OFF, ChildMain

_REQUEST = Struct("<BI")  # request, and a slot or pid
_EVENT = Struct("<BIIiQ")  # event, slot, pid, wait status or errno, peak memory in bytes
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_PR_SET_PDEATHSIG = 1


class _Request(IntEnum):
    FORK = 1
    KILL = 2
    DUMP = 3


class _Event(IntEnum):
    STARTED = 1
    ENDED = 2
    REFUSED = 3


class Started(NamedTuple):
    """A child was forked."""

    slot: int
    pid: int
    socket: socket.socket


class Ended(NamedTuple):
    """A child has exited."""

    slot: int
    pid: int
    status: int  #: as from os.wait
    peak: int  #: peak memory in bytes


class Refused(NamedTuple):
    """The system has refused to fork."""

    slot: int
    errno: int


Event = Started | Ended | Refused


class ForkServer:
    """The supervisor's end of the socket to the fork server. Call `read` when `fileno` is readable."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self._control = control

    @classmethod
    def start(cls, child_main: Callable[[], ChildMain], at_end: Callable[[], None] = lambda: None) -> "ForkServer":
        """Fork the fork server.

        It calls `child_main` once, for the imports that all children share, and `at_end` before it exits.
        """
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            ours.close()
            _live(lambda: _Server(theirs, child_main(), at_end).run())
        theirs.close()
        return cls(pid, ours)

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._control.fileno()

    def fork(self, slot: int) -> None:
        """Request a child for a slot. The response is Started or Refused."""
        self._ask(_Request.FORK, slot)

    def kill(self, pid: int) -> None:
        """Kill a child and its process group. The response is Ended, which may have been sent before."""
        self._ask(_Request.KILL, pid)

    def dump(self, pid: int) -> None:
        """Make a child write its stacks. The fork server signals it, because it knows that the child was not reaped."""
        self._ask(_Request.DUMP, pid)

    def read(self) -> Event | None:
        """Wait for the next event and return it; None if the fork server has exited."""
        data, fds, _, _ = socket.recv_fds(self._control, _EVENT.size, 1)
        if not data:
            return None
        what, slot, pid, status, peak = _EVENT.unpack(data)
        if what == _Event.STARTED:
            return Started(slot, pid, socket.socket(fileno=fds[0]))
        return Ended(slot, pid, status, peak) if what == _Event.ENDED else Refused(slot, status)

    def close(self) -> None:
        """Kill all children, and wait until they and the fork server have exited."""
        self._control.close()
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _ask(self, verb: _Request, number: int) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has exited; `read` will return None
            self._control.sendall(_REQUEST.pack(verb, number))


def cause_of(ended: Ended) -> str:
    """Return a text that says how a child exited, such as "killed by SIGSEGV, peak memory 34 MB"."""
    code = os.waitstatus_to_exitcode(ended.status)
    how = f"exited with code {code}" if code >= 0 else f"killed by {_signal_name(-code)}"
    if code == CUT_OFF:
        how += " (its socket to the worker was closed: a node must not close file descriptors that it did not open)"
    return f"{how}, peak memory {ended.peak / 1e6:.0f} MB"


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


class _Server:
    """The process of the fork server."""

    def __init__(self, control: socket.socket, child_main: ChildMain, at_end: Callable[[], None]) -> None:
        self._control = control
        self._child_main = child_main
        self._at_end = at_end
        self._slots: dict[int, int] = {}  # by pid
        self._woken, self._waker = os.pipe()
        self._tie = _die_with_parent()
        self._pid = os.getpid()

    def run(self) -> int:
        """Serve requests until the supervisor exits."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the supervisor handles signals
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        gc.freeze()  # keeps the garbage collector from writing to pages that the children share
        waiting = poll()
        waiting.register(self._control, 1)
        waiting.register(self._woken, 1)
        try:
            while self._turn({descriptor for descriptor, _ in waiting.poll()}):
                pass
        finally:
            self._kill_all()
            self._at_end()
        return 0

    def _turn(self, ready: set[int]) -> bool:
        if self._woken in ready:
            os.read(self._woken, 4096)
            self._reap()
        return self._control.fileno() not in ready or self._obey()

    def _obey(self) -> bool:
        """Serve one request. Return False if the supervisor has exited."""
        with suppress(ConnectionResetError):
            if request := self._control.recv(_REQUEST.size):
                verb, number = _REQUEST.unpack(request)
                if verb == _Request.FORK:
                    self._fork(number)
                elif number in self._slots and verb == _Request.DUMP:
                    os.kill(number, STACK_SIGNAL)
                elif number in self._slots:
                    _kill_group(number)
                return True
        return False

    def _fork(self, slot: int) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                pid = os.fork()
            except OSError as error:
                self._tell(_Event.REFUSED, slot, 0, error.errno or 0, 0)
                return
            if not pid:
                ours.close()
                self._become_child(slot, theirs)
            with suppress(OSError):
                os.setpgid(pid, pid)  # the child does the same; the order does not matter
            self._slots[pid] = slot
            self._tell(_Event.STARTED, slot, pid, 0, 0, ours)

    def _become_child(self, slot: int, theirs: socket.socket) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        os.close(self._woken)
        os.close(self._waker)
        os.setpgid(0, 0)
        self._tie()
        if os.getppid() != self._pid:  # the fork server exited before `_tie` took effect
            os._exit(1)
        _live(lambda: self._child_main(slot, theirs))

    def _reap(self) -> None:
        while self._slots:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if not pid:
                return
            _kill_group(pid)  # processes that its nodes have left running
            self._tell(_Event.ENDED, self._slots.pop(pid), pid, status, usage.ru_maxrss * _RSS_UNIT)

    def _tell(
        self, what: _Event, slot: int, pid: int, status: int, peak: int, passed: socket.socket | None = None
    ) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the supervisor has exited; `_obey` will notice
            fds = [] if passed is None else [passed.fileno()]
            socket.send_fds(self._control, [_EVENT.pack(what, slot, pid, status, peak)], fds)

    def _kill_all(self) -> None:
        for pid in self._slots:
            _kill_group(pid)
        for pid in self._slots:
            os.waitpid(pid, 0)


def _live(main: Callable[[], int]) -> NoReturn:
    """Run `main` in a forked process and exit with its exit code, without returning to the caller."""
    code = 1
    try:
        code = main()
    except BaseException:
        print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


def _die_with_parent() -> Callable[[], object]:
    """Return a function with which a child asks to be killed when its parent exits, even during a long node.

    On systems other than Linux it does nothing, and only the fork server kills the children.
    """
    if sys.platform != "linux":
        return lambda: None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: with a handler the signal wakes the poll, which an ignored signal does not."""
