"""Processes that user code forks from a worker. They own nothing of the worker, and exit as any Python process does.

The rule: every object that holds a worker's sockets, memory or running attempts registers here, and gives them up in a
fork. No fork writes to the supervisor or the broker.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from traceback import print_exc
from typing import NoReturn, Protocol
from weakref import WeakSet

from dagorama.worker.failures import user_frames


class Owner(Protocol):
    """An object that holds resources which a fork must not use."""

    def forget(self) -> None:
        """Give up the resources of the parent process. This is called in the fork, and must not take locks."""
        ...


_owners: WeakSet[Owner] = WeakSet()


def forget_in_forks(owner: Owner) -> None:
    """Call `owner.forget()` in each process that is forked from this one."""
    _owners.add(owner)


def leave(error: BaseException | None = None, *, at_once: bool = False) -> NoReturn:
    """Exit a fork whose user code has returned, or raised `error`, without returning to the code of the worker.

    The exit code is 0, or the code of SystemExit, or 1 after a traceback was printed. Unless `at_once` is true,
    non-daemon threads are joined and atexit handlers run, as at the end of every Python process.
    """
    code = 1
    try:
        code = _exit_code(error)
        if not at_once:
            threading._shutdown()  # type: ignore[attr-defined]  # private: the interpreter calls it at exit
            atexit._run_exitfuncs()
    except BaseException:
        print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(code)


def _exit_code(error: BaseException | None) -> int:
    """Print `error` as Python would at exit, and return the exit code that Python would use."""
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        error.__traceback__ = user_frames(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _forget_all() -> None:
    for owner in list(_owners):
        owner.forget()


os.register_at_fork(after_in_child=_forget_all)
