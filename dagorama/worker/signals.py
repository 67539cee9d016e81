"""Signals: a child's forks lose none, and what a run changes of handlers, timers and the mask is put back after it.

The setters of the `signal` module are wrapped, so that a run that calls none of them costs one look at an empty dict.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import cache, partial, wraps
from types import FrameType
from typing import Any

from dagorama.running import current_run
from dagorama.worker.forks import leave

_TIMER, _HANDLER, _MASK = range(3)  # in the order in which they are put back: a timer must not meet another handler

#: How to undo what the present run has changed, by kind and number.
changes: dict[tuple[int, int], Callable[[], object]] = {}

_signal, _setitimer, _alarm, _sigmask = signal.signal, signal.setitimer, signal.alarm, signal.pthread_sigmask
_held = (signal.SIGINT, signal.SIGTERM)  # across a fork
_masks = threading.local()  # .stack: the masks that this thread had before the forks that it is in the middle of


def put_back() -> None:
    """Undo what the run has changed, if it is in the main thread. Raises what the handler of a late timer raises."""
    if threading.current_thread() is not threading.main_thread():
        return
    try:
        _undo()
    except BaseException:
        _undo()  # the timer is off by now
        raise


def _undo() -> None:
    for key in sorted(changes):
        changes[key]()
        del changes[key]


def settle() -> None:
    """Answer signals as a child does, in it and in its forks."""
    for number in _held:
        # Not ignored: what user code executes would inherit that.
        _signal(number, _leave_it_to_the_supervisor)
    _signal(signal.SIGHUP, signal.SIG_DFL)
    # Python forgets signals that a fork receives before its own hooks have run.
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_be_ordinary)


def _leave_it_to_the_supervisor(_number: int, _frame: FrameType | None) -> None:
    """It decides what a signal to the whole group means for what runs here."""


# --- around a fork ---------------------------------------------------------------------------------


def _hold() -> None:
    stack = _masks.__dict__.setdefault("stack", [])
    stack.append(_sigmask(signal.SIG_BLOCK, _held))


def _release() -> None:
    _sigmask(signal.SIG_SETMASK, _masks.stack.pop())


def _be_ordinary() -> None:
    """Have a process that user code forks end when it is told to, unless that code has its own handler."""
    for number, ordinary in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is _leave_it_to_the_supervisor:
            _signal(number, ordinary)
    try:
        _release()
    except BaseException as error:  # a signal came meanwhile; what its handler raises in here would be ignored
        leave(error, at_once=True)


# --- around a run ----------------------------------------------------------------------------------


@cache
def note_changes() -> None:
    """Note from now on what runs change, for `put_back`."""
    for wrapper in (_noting_signal, _noting_setitimer, _noting_alarm, _noting_sigmask):
        setattr(signal, wrapper.__name__, wrapper)


def _note(kind: int, number: int, undo: Callable[[], object]) -> None:
    """Keep the first way back of a run in the main thread. Async nodes overlap elsewhere and are not told apart."""
    if current_run.get() is not None and threading.current_thread() is threading.main_thread():
        changes.setdefault((kind, number), undo)


@wraps(signal.signal)
def _noting_signal(signalnum: Any, handler: Any) -> Any:
    before = _signal(signalnum, handler)
    if before is not None:  # else C code has installed it, and Python cannot
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
