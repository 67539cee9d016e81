"""Process state that a run may change: signal handlers, timers, the signal mask and the current folder.

The rule: it is restored after each sync run in the main thread. The setters are wrapped, so that a run that calls none
of them costs one check of an empty dict.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import cache, partial, wraps
from typing import Any

from dagorama.context import current_run

_TIMER, _HANDLER, _MASK, _FOLDER = range(4)  # in the order of restoring: a timer must not fire into another handler

#: Undo actions for the changes of the current run, by kind and number.
changes: dict[tuple[int, int], Callable[[], object]] = {}

_signal, _setitimer, _alarm, _sigmask = signal.signal, signal.setitimer, signal.alarm, signal.pthread_sigmask
_chdir, _fchdir = os.chdir, os.fchdir


def put_back() -> None:
    """Undo the changes of the run, if it is in the main thread. Raises what the handler of a late timer raises."""
    if threading.current_thread() is not threading.main_thread():
        return
    try:
        _undo()
    except BaseException:
        _undo()  # the timer is off now
        raise


def _undo() -> None:
    for key in sorted(changes):
        changes[key]()
        del changes[key]


@cache
def note_changes() -> None:
    """Record the changes of runs from now on, for `put_back`."""
    for module, wrappers in (
        (signal, (_noting_signal, _noting_setitimer, _noting_alarm, _noting_sigmask)),
        (os, (_noting_chdir, _noting_fchdir)),
    ):
        for wrapper in wrappers:
            setattr(module, wrapper.__name__, wrapper)


def _is_noted() -> bool:
    """Return whether the caller is a sync run in the main thread. Changes by async nodes are not recorded."""
    return current_run.get() is not None and threading.current_thread() is threading.main_thread()


def _note(kind: int, number: int, undo: Callable[[], object]) -> None:
    if _is_noted():
        changes.setdefault((kind, number), undo)  # the first recorded state is the one before the run


@wraps(signal.signal)
def _noting_signal(signalnum: Any, handler: Any) -> Any:
    before = _signal(signalnum, handler)
    if before is not None:  # None: C code has installed the handler, and Python cannot restore it
        _note(_HANDLER, signalnum, partial(_signal, signalnum, before))
    return before


@wraps(signal.setitimer)
def _noting_setitimer(which: int, seconds: float, interval: float = 0.0, /) -> tuple[float, float]:
    before = _setitimer(which, seconds, interval)
    _note(_TIMER, which, partial(_setitimer, which, *before))
    return before


@wraps(signal.alarm)
def _noting_alarm(seconds: int, /) -> int:
    timer = signal.getitimer(signal.ITIMER_REAL)
    before = _alarm(seconds)
    _note(_TIMER, signal.ITIMER_REAL, partial(_setitimer, signal.ITIMER_REAL, *timer))
    return before


@wraps(signal.pthread_sigmask)
def _noting_sigmask(how: int, mask: Any, /) -> set[signal.Signals | int]:
    before: set[signal.Signals | int] = _sigmask(how, mask)
    _note(_MASK, 0, partial(_sigmask, signal.SIG_SETMASK, before))
    return before


@wraps(os.chdir)
def _noting_chdir(path: Any) -> None:
    _note_folder()
    _chdir(path)


@wraps(os.fchdir)
def _noting_fchdir(fd: Any) -> None:
    _note_folder()
    _fchdir(fd)


def _note_folder() -> None:
    if _is_noted():
        with suppress(OSError):  # the folder was removed
            _note(_FOLDER, 0, partial(_go_back, os.getcwd()))


def _go_back(folder: str) -> None:
    with suppress(OSError):  # the folder was removed meanwhile
        _chdir(folder)


def has_decimal(context: Context) -> bool:
    """Return whether a decimal context is set in `context`: all copies of `context` would share that object."""
    return any(variable.name == "decimal_context" for variable in context)


def renew_decimal() -> None:
    """Give the current context a decimal context of its own."""
    from decimal import getcontext, setcontext

    setcontext(getcontext().copy())
