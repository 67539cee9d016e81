"""Blocking calls of async code, in a thread.

The rule: the thread is a daemon and belongs to one wait; leaving the block, also by cancellation, ends the blocking
call.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class WaiterThread:
    """A thread: `async with Beside(give_up) as thread: await thread.run(...)`; `give_up` must end a running call."""

    def __init__(self, give_up: Callable[[], None]) -> None:
        self._give_up = give_up
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_inline = False

    async def __aenter__(self) -> WaiterThread:
        self._is_inline = _is_inline()
        if self._is_inline:
            return self
        threading.Thread(target=_live, args=(self._calls,), name="dagorama-beside", daemon=True).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._calls.put(None)
        self._give_up()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function` in the thread, one call at a time; it must not raise StopIteration."""
        import asyncio

        if self._is_inline:
            return function(*args)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def call() -> None:
            try:
                result = function(*args)
            except BaseException as error:
                _tell(loop, future, partial(future.set_exception, error))
            else:
                _tell(loop, future, partial(future.set_result, result))

        self._calls.put(call)
        return await future


def _live(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], answer: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(lambda: None if future.done() else answer())


def _is_inline() -> bool:
    """Return whether calls to the broker do the work themselves: a thread would run nodes in another thread."""
    from dagorama.client.connection import is_inline

    return is_inline()


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call a function that waits for the broker: in a thread if an asyncio loop runs here, otherwise directly."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or _is_inline():
        return function(*args)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function(*args)
    result: T = await asyncio.to_thread(function, *args)
    return result
