"""The run of a node, as its own code may ask about it. The worker says what runs; nothing else lives here."""

from collections.abc import Callable
from contextvars import ContextVar


def never() -> bool:
    """Of a run that nobody can cancel."""
    return False


class Run:
    """One run of a node: the worker makes it. `is_cancelled` is asked anew each time, from any thread."""

    __slots__ = ("_is_cancelled", "number")

    def __init__(self, number: int = 1, is_cancelled: Callable[[], bool] = never) -> None:
        self.number = number  #: 1 for the first
        self._is_cancelled = is_cancelled

    @property
    def cancelled(self) -> bool:
        return self._is_cancelled()


#: the run whose function this thread or task is running
current_run: ContextVar[Run | None] = ContextVar("dagorama_current_run", default=None)


def cancelled() -> bool:
    """Whether the node that runs here has been cancelled: for long sync code, to clean up and return or raise.

    What it returns then is not recorded, and after a grace its process is stopped. An async node gets
    asyncio.CancelledError besides. False where no node runs, also in threads that a node has started itself.
    """
    run = current_run.get()
    return run is not None and run.cancelled
