"""Threads that a node starts belong to its run. A thread of a pool belongs to the run that submitted its current task.

Plain threads do not inherit context variables, so the functions with which Python starts threads are wrapped. Only the
current run is passed on; apart from that a thread has its own context.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, wraps
from typing import Any

from dagorama.context import STARTED_BY, RunningNode, current_run, run_of_thread

_start, _start_new_thread, _submit = threading.Thread.start, _thread.start_new_thread, ThreadPoolExecutor.submit


@cache
def follow_threads() -> None:
    """Let each thread that a run starts from now on, directly or indirectly, belong to that run."""
    # With setattr, because type checkers forbid these assignments.
    for owner, name, wrapper in (
        (threading.Thread, "start", _following_start),
        (_thread, "start_new_thread", _following_start_new_thread),
        (ThreadPoolExecutor, "submit", _following_submit),
    ):
        setattr(owner, name, wrapper)


def _run_of_caller() -> RunningNode | None:
    return current_run.get() or run_of_thread()


@wraps(threading.Thread.start)
def _following_start(self: threading.Thread) -> None:
    if (run := _run_of_caller()) is not None:
        self.__dict__.setdefault(STARTED_BY, run)
    _start(self)


@wraps(_thread.start_new_thread)
def _following_start_new_thread(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, /
) -> int:
    if (run := _run_of_caller()) is None:
        return _start_new_thread(function, args, kwargs or {})
    return _start_new_thread(_within, (run, function, args, kwargs or {}))


@wraps(ThreadPoolExecutor.submit)  # type: ignore[arg-type]  # mypy cannot solve for a generic method
def _following_submit(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
    if (run := _run_of_caller()) is None:
        return _submit(self, fn, *args, **kwargs)
    return _submit(self, _within, run, fn, args, kwargs)


def _within(run: RunningNode, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    token = current_run.set(run)
    try:
        return function(*args, **kwargs)
    finally:
        current_run.reset(token)
