"""Processes that user code forks from a worker. A fork owns nothing of the worker's and ends as Python would end it.

The rule: what holds a worker's sockets, memory or runs registers here and lets go of them in a fork. No fork writes to
the supervisor or the broker.
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
    def forget(self) -> None:
        """Let go of what belongs to the process that was forked. Called in the fork; takes no lock."""
        ...


_owners: WeakSet[Owner] = WeakSet()


def forget_in_forks(owner: Owner) -> None:
    """Have `owner.forget()` called in each process that is forked from this one."""
    _owners.add(owner)


def leave(error: BaseException | None = None, *, at_once: bool = False) -> NoReturn:
    """End a fork whose user code has returned, or raised `error`, without going back to the worker's own code.

    The exit code is 0 after a return, that of SystemExit, or 1 after a traceback. Unless it ends `at_once`, non-daemon
    threads are joined and atexit handlers run, as at the end of any Python process.
    """
    code = 1
    try:
        code = _exit_code(error)
        if not at_once:
            threading._shutdown()  # type: ignore[attr-defined]  # private: what the interpreter calls when it ends
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
    """Print what Python would print for `error`; return the exit code that it would use."""
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
