"""How a child and the processes that user code forks from it answer signals. A fork loses none that comes at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from dagorama.worker.child.forks import leave

_HELD = (signal.SIGINT, signal.SIGTERM)  # across a fork
_sigmask = signal.pthread_sigmask  # not the one that notes what runs change
_masks = threading.local()  # .stack: the masks that this thread had before the forks that it is in the middle of


def settle() -> None:
    """Answer signals as a child does, in it and in its forks."""
    for number in _HELD:
        # Not ignored: what user code executes would inherit that.
        signal.signal(number, _leave_it_to_the_supervisor)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Python forgets signals that a fork receives before its own hooks have run.
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_be_ordinary)


def _leave_it_to_the_supervisor(_number: int, _frame: FrameType | None) -> None:
    """It decides what a signal to the whole group means for what runs here."""


def _hold() -> None:
    stack = _masks.__dict__.setdefault("stack", [])
    stack.append(_sigmask(signal.SIG_BLOCK, _HELD))


def _release() -> None:
    _sigmask(signal.SIG_SETMASK, _masks.stack.pop())


def _be_ordinary() -> None:
    """Have a process that user code forks end when it is told to, unless that code has its own handler."""
    for number, ordinary in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is _leave_it_to_the_supervisor:
            signal.signal(number, ordinary)
    try:
        _release()
    except BaseException as error:  # a signal came meanwhile; what its handler raises in here would be ignored
        leave(error, at_once=True)
