"""Signal handling in a child and in the processes that user code forks from it. A fork misses no early signal."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from dagorama.worker.child.forks import leave

_HELD = (signal.SIGINT, signal.SIGTERM)  # blocked during a fork
_sigmask = signal.pthread_sigmask  # not the wrapper that records what runs change
_masks = threading.local()  # .stack: the masks of this thread before the forks that are in progress


def settle() -> None:
    """Install the signal handling of a child, for the child and its forks."""
    for number in _HELD:
        # Not SIG_IGN: programs that user code executes would inherit it.
        signal.signal(number, _leave_it_to_the_supervisor)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Python drops signals that a fork receives before Python's own fork hooks have run.
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_be_ordinary)


def _leave_it_to_the_supervisor(_number: int, _frame: FrameType | None) -> None:
    """Ignore the signal: the supervisor receives signals to the process group too, and decides what they mean."""


def _hold() -> None:
    stack = _masks.__dict__.setdefault("stack", [])
    stack.append(_sigmask(signal.SIG_BLOCK, _HELD))


def _release() -> None:
    _sigmask(signal.SIG_SETMASK, _masks.stack.pop())


def _be_ordinary() -> None:
    """Restore the default signal handling in a fork, so that signals end it, unless user code has set a handler."""
    for number, ordinary in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is _leave_it_to_the_supervisor:
            signal.signal(number, ordinary)
    try:
        _release()
    except BaseException as error:  # raised by the handler of a pending signal; in a fork hook it would be ignored
        leave(error, at_once=True)
