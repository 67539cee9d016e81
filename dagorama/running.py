"""The run of a node, as its own code may ask about it. The worker says what runs; nothing else lives here."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from dagorama.errors import NotInNode


def never() -> bool:
    """Of a run that nobody can cancel."""
    return False


@dataclass(frozen=True, slots=True)
class CurrentNode:
    """Which node runs here: `dagorama show INSTANCE NODE` takes its ids."""

    instance_id: UUID
    node_id: UUID
    attempt: int  #: 1 for the first run
    function: str  #: "package.module:Class.method"

    @property
    def definition(self) -> str:
        """The definition of the function, "package.module:Class"."""
        return self.function.rpartition(".")[0]

    @property
    def short(self) -> str:
        """For the lines of a log: the instance's first eight digits, and the node's number among its maker's nodes."""
        name, number = self.function.rpartition(":")[2], int.from_bytes(self.node_id.bytes[12:], "big")
        return f"{self.instance_id.hex[:8]} #{number} {name}, attempt {self.attempt}"

    def __str__(self) -> str:
        return f"{self.function} (instance {self.instance_id}, node {self.node_id}, attempt {self.attempt})"


class Function(Protocol):
    """What a call runs."""

    name: str


class Call(Protocol):
    """A node as the worker is given it."""

    @property
    def instance(self) -> bytes: ...
    @property
    def id(self) -> bytes: ...
    @property
    def work(self) -> Function: ...


class Run:
    """One run of a node: the worker makes it. `is_cancelled` is asked anew each time, from any thread."""

    __slots__ = ("_call", "_is_cancelled", "number")

    def __init__(self, number: int = 1, is_cancelled: Callable[[], bool] = never, call: Call | None = None) -> None:
        self.number = number  #: 1 for the first
        self._is_cancelled = is_cancelled
        self._call = call

    def described(self) -> CurrentNode | None:
        """Made when it is asked for: most nodes never do. None for a run that no worker has made."""
        call = self._call
        if call is None:
            return None
        return CurrentNode(UUID(bytes=call.instance), UUID(bytes=call.id), self.number, call.work.name)

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


def current() -> CurrentNode:
    """Which node runs here: its ids, which attempt this is, and its function. In sync and async nodes.

    Raises NotInNode if no node runs here.
    """
    found = running()
    if found is None:
        raise NotInNode("no node runs here: current() tells a node about itself, call it in a @dagorama method")
    return found


def running() -> CurrentNode | None:
    """Which node runs here; None if none does."""
    run = current_run.get()
    return None if run is None else run.described()
