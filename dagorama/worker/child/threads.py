"""Threads that a run starts belong to it: each remembers whose it is, and a pool's thread is that of its present task.

Plain threads do not inherit context variables, so the places where Python starts them are wrapped. Only what dagorama
asks for is handed on; a thread's context stays its own.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, wraps
from typing import Any

from dagorama.context import STARTED_BY, Run, current_run, run_of_thread

_start, _start_new_thread, _submit = threading.Thread.start, _thread.start_new_thread, ThreadPoolExecutor.submit


@cache
def follow_threads() -> None:
    """Have each thread that a run starts from now on, however indirectly, belong to that run."""
    # setattr: for type checkers these are not to be assigned to.
    for owner, name, wrapper in (
        (threading.Thread, "start", _following_start),
        (_thread, "start_new_thread", _following_start_new_thread),
        (ThreadPoolExecutor, "submit", _following_submit),
    ):
        setattr(owner, name, wrapper)


def _run_of_caller() -> Run | None:
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
def _following_submit(
    self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Future[Any]:
    if (run := _run_of_caller()) is None:
        return _submit(self, fn, *args, **kwargs)
    return _submit(self, _within, run, fn, args, kwargs)


def _within(run: Run, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    token = current_run.set(run)
    try:
        return function(*args, **kwargs)
    finally:
        current_run.reset(token)
