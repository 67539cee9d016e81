"""What runs here: the node, its attempt, an open `together()` block. Code of every layer above may ask.

The rule: the worker and the caller say what runs; this module only remembers it, per thread and per task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from dagorama.errors import NotInInstance, NotInNode

#: the attribute in which a thread keeps the run that has started it
STARTED_BY = "_dagorama_started_by"


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
        return self.function.partition("@")[0].rpartition(".")[0]

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


class Attempt(Protocol):
    """What a running node makes, as code below `graph` sees it."""

    def made(self, node_id: bytes) -> bool:
        """Return whether the node is one of this attempt's."""
        ...

    def put(self, value: object) -> tuple[bytes, bool]:
        """Store the large parts of a value; return its envelope, and whether there are promises in it."""
        ...

    def abandon(self) -> None:
        """Refuse every later call, in a fork of the process."""
        ...


class Run:
    """One run of a node: the worker makes it. `is_cancelled` is asked anew each time, from any thread."""

    __slots__ = ("_call", "_is_cancelled", "attempt", "number")

    def __init__(
        self,
        number: int = 1,
        is_cancelled: Callable[[], bool] = never,
        attempt: Attempt | None = None,
        call: Call | None = None,
    ) -> None:
        self.number = number  #: 1 for the first
        self.attempt = attempt  #: what the run makes; None once it is over
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
    asyncio.CancelledError besides. Threads of a node may ask too. False where no node runs.
    """
    run = run_here()
    return run is not None and run.cancelled


# --- threads ---------------------------------------------------------------------------------------

#: runs that unknown threads may belong to; None as long as this process runs no nodes, and asking costs nothing
_under_way: Collection[Run] | None = None


def expect_threads(only: Collection[Run] | None = None) -> None:
    """Have `run_here` look at threads. In a process that does nothing but run nodes, `only` holds those under way."""
    global _under_way
    if only is not None:
        _under_way = only
    elif _under_way is None:
        _under_way = ()


def run_here() -> Run | None:
    """The run that the calling thread or task belongs to, which may be over; None outside of nodes.

    In a worker's child process, a thread that no run has started belongs to the run that is under way. Raises
    NotInInstance if there are several.
    """
    run = current_run.get()
    return run if run is not None or _under_way is None else run_of_thread() or _only_run()


def run_of_thread() -> Run | None:
    """The run that has started the calling thread, however indirectly, if its starts are followed."""
    run: Run | None = threading.current_thread().__dict__.get(STARTED_BY)
    return run


def _only_run() -> Run | None:
    runs = list(_under_way or ())
    if len(runs) > 1:
        raise NotInInstance(
            f"a thread that no node has started called dagorama while {len(runs)} nodes run in this process, so it "
            "is not known for which of them: call from the node itself, or run the thread's function by "
            "asyncio.to_thread() or by contextvars.copy_context().run() of the node's context"
        )
    return runs[0] if runs else None


# --- which node runs here --------------------------------------------------------------------------


def current() -> CurrentNode:
    """Which node runs here: its ids, which attempt this is, and its function. In sync and async nodes.

    Raises NotInNode if no node runs here.
    """
    run = run_here()
    found = None if run is None else run.described()
    if found is None:
        raise NotInNode("no node runs here: current() tells a node about itself, call it in a @dagorama method")
    return found


def running() -> CurrentNode | None:
    """Which node runs here; None if none does, or if it is not known which."""
    try:
        run = run_here()
    except NotInInstance:
        return None
    return None if run is None else run.described()


# --- the attempt whose function runs here ----------------------------------------------------------

#: why an attempt takes no more calls
OVER = "after its run was over; call it before the run returns"
#: the attempt whose function this thread or task is running
current_attempt: ContextVar[Attempt | None] = ContextVar("dagorama_current_attempt", default=None)


def attempt_here() -> Attempt | None:
    """Return the attempt that the calling thread or task belongs to; None outside of nodes.

    Raises NotInInstance in a thread whose run is over, or if it is not known which run the thread belongs to.
    """
    attempt = current_attempt.get()
    if attempt is None and (run := run_here()) is not None:
        attempt = run.attempt
        if attempt is None:
            raise NotInInstance(f"dagorama was called by a thread of a node {OVER}")
    return attempt


# --- an open together() block ----------------------------------------------------------------------


class Batch(Protocol):
    """What a `together()` block has made so far."""

    over: bool

    def has_instance(self, instance: bytes) -> bool: ...


current_batch: ContextVar[Batch | None] = ContextVar("dagorama_current_batch", default=None)


def batch_here() -> Batch | None:
    """Return the open batch that this thread or task adds to; None if there is none."""
    batch = current_batch.get()
    return None if batch is None or batch.over else batch


def is_held_back(instance: bytes) -> bool:
    """Return whether the instance was made in a `together()` block that has not ended."""
    batch = batch_here()
    return batch is not None and batch.has_instance(instance)
