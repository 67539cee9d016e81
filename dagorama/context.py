"""The context of the calling thread or task: the running node, its attempt, an open `batch()` block.

The rule: the worker and the caller set the context; this module only stores it, for each thread and task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from dagorama.errors import NotInInstance, NotInNode

if TYPE_CHECKING:
    from logging import Logger, LoggerAdapter

#: The attribute of a thread that holds the run which has started it.
STARTED_BY = "_dagorama_started_by"


def never() -> bool:
    """Return False, for a run that cannot be cancelled."""
    return False


@dataclass(frozen=True, slots=True)
class CurrentNode:
    """The node that runs here: `dagorama show INSTANCE NODE` takes its IDs."""

    instance_id: UUID
    node_id: UUID
    attempt: int  #: 1 for the first attempt
    function: str  #: "package.module:Class.method"

    @property
    def definition(self) -> str:
        """The definition of the function, "package.module:Class"."""
        return self.function.partition("@")[0].rpartition(".")[0]

    @property
    def short(self) -> str:
        """A short text for logs: eight digits of the instance, and the node's number among the nodes of its creator."""
        name, number = self.function.rpartition(":")[2], int.from_bytes(self.node_id.bytes[12:], "big")
        return f"{self.instance_id.hex[:8]} #{number} {name}, attempt {self.attempt}"

    @property
    def logger(self) -> LoggerAdapter[Logger]:
        """The logger of the module of the function. Its records carry `instance`, `node`, `attempt` and `function`."""
        import logging

        carried = {
            "instance": str(self.instance_id), "node": str(self.node_id), "attempt": self.attempt,
            "function": self.function,
        }  # fmt: skip
        return logging.LoggerAdapter(logging.getLogger(self.function.partition(":")[0]), carried)

    def __str__(self) -> str:
        return f"{self.function} (instance {self.instance_id}, node {self.node_id}, attempt {self.attempt})"


class Function(Protocol):
    """The function of a call."""

    name: str


class Call(Protocol):
    """A node that was granted to a worker."""

    @property
    def node(self) -> int: ...
    @property
    def attempt(self) -> int: ...
    @property
    def instance(self) -> bytes: ...
    @property
    def id(self) -> bytes: ...
    @property
    def work(self) -> Function: ...


class Attempt(Protocol):
    """The attempt of a running node, as far as code below `graph` needs it."""

    scheduled: str  #: the time for which a schedule has started the instance; empty: none has

    def made(self, node_id: bytes) -> bool:
        """Return whether this attempt has made the node."""
        ...

    def put(self, value: object) -> tuple[bytes, bool]:
        """Store the large parts of a value; return its envelope, and whether it contains promises."""
        ...

    def abandon(self) -> None:
        """Refuse all later calls, in a fork of the process."""
        ...


class Log(Protocol):
    """The log of one attempt, and its reports; any thread may write to it. `source` is a LogSource."""

    def write(self, source: int, data: bytes | str) -> None: ...
    def add(self, level: int, logger: str, text: bytes) -> None: ...
    def report(self, message: str, fraction: float | None) -> None: ...
    def close(self) -> None: ...


class RunningNode:
    """One attempt of a node, made by the worker. `is_cancelled` is called each time, from any thread."""

    __slots__ = ("_is_cancelled", "_open_log", "attempt", "call", "log", "number")

    def __init__(
        self,
        number: int = 1,
        is_cancelled: Callable[[], bool] = never,
        attempt: Attempt | None = None,
        call: Call | None = None,
        open_log: OpenLog | None = None,
    ) -> None:
        self.number = number  #: 1 for the first attempt
        self.attempt = attempt  #: the calls of the node; None when the run is over
        self.call = call
        self.log: Log | None = None  #: made when the node first prints, logs or reports something
        self._is_cancelled = is_cancelled
        self._open_log = open_log

    def opened_log(self) -> Log | None:
        """Return the log of the attempt; None if the run is over or has none."""
        if self.log is None and self.attempt is not None and self._open_log is not None:
            self.log = self._open_log(self)
        return self.log

    def described(self) -> CurrentNode | None:
        """Return the running node; None for a run that no worker has made. Most nodes do not ask."""
        call = self.call
        if call is None:
            return None
        return CurrentNode(UUID(bytes=call.instance), UUID(bytes=call.id), self.number, call.work.name)

    @property
    def cancelled(self) -> bool:
        return self._is_cancelled()


#: Makes the log of a run that prints, logs or reports something.
OpenLog = Callable[[RunningNode], Log]
#: The run whose function this thread or task executes.
current_run: ContextVar[RunningNode | None] = ContextVar("dagorama_current_run", default=None)


def cancelled() -> bool:
    """Return whether the running node was cancelled, so that long sync code can clean up and return or raise.

    The result of a cancelled node is not recorded, and its process is stopped after a grace period. An async node also
    gets asyncio.CancelledError. Threads of a node may call this. Returns False outside of nodes.
    """
    run = run_here()
    return run is not None and run.cancelled


# --- threads ---------------------------------------------------------------------------------------

#: Runs that unknown threads may belong to; None if this process runs no nodes, so that `run_here` is fast.
_under_way: Collection[RunningNode] | None = None


def expect_threads(only: Collection[RunningNode] | None = None) -> None:
    """Let `run_here` consider threads. In a process that only runs nodes, `only` holds the current runs."""
    global _under_way
    if only is not None:
        _under_way = only
    elif _under_way is None:
        _under_way = ()


def run_here() -> RunningNode | None:
    """Return the run that the calling thread or task belongs to, which may be over; None outside of nodes.

    In a child process of a worker, a thread that no run has started belongs to the current run. Raises NotInInstance if
    there are several current runs.
    """
    run = current_run.get()
    return run if run is not None or _under_way is None else run_of_thread() or _only_run()


def run_of_thread() -> RunningNode | None:
    """Return the run that has started the calling thread, directly or indirectly; None if it is unknown."""
    run: RunningNode | None = threading.current_thread().__dict__.get(STARTED_BY)
    return run


def _only_run() -> RunningNode | None:
    runs = list(_under_way or ())
    if len(runs) > 1:
        raise NotInInstance(
            f"a thread that no node has started called dagorama while {len(runs)} nodes run in this process, and it is "
            "unknown which of them it belongs to: call from the node itself, or run the function of the thread with "
            "asyncio.to_thread() or with contextvars.copy_context().run() of the node's context"
        )
    return runs[0] if runs else None


# --- the running node ------------------------------------------------------------------------------


def current() -> CurrentNode:
    """Return the IDs, attempt and function of the running node, in sync and async nodes.

    Raises NotInNode outside of nodes.
    """
    run = run_here()
    found = None if run is None else run.described()
    if found is None:
        raise NotInNode("no node runs here: call current() in a @dagorama method")
    return found


def report(message: str, fraction: float | None = None) -> None:
    """Report the progress of the running node, for `dagorama show` and `watch`; `fraction` is from 0 to 1.

    The latest report is sent, at most once a second, and forgotten when the attempt ends. Raises NotInNode outside of
    nodes, and ValueError for another fraction.
    """
    run = run_here()
    if run is None or run.call is None:
        raise NotInNode("no node runs here: call report() in a @dagorama method")
    if fraction is not None and not 0 <= fraction <= 1:
        raise ValueError(f"the fraction of a report is from 0 to 1, not {fraction!r}")
    if (log := run.opened_log()) is not None:
        log.report(message, fraction)


def running() -> CurrentNode | None:
    """Return the running node; None outside of nodes, or if it is unknown which node runs here."""
    run = known_run()
    return None if run is None else run.described()


def known_run() -> RunningNode | None:
    """Return the run that the calling thread or task belongs to; None outside of nodes, or if it is unknown."""
    try:
        return run_here()
    except NotInInstance:
        return None


# --- the attempt whose function runs here ----------------------------------------------------------

#: The end of the error message for calls after an attempt.
OVER = "after its node had ended; call it before the node returns"
#: The attempt whose function this thread or task executes.
current_attempt: ContextVar[Attempt | None] = ContextVar("dagorama_current_attempt", default=None)


def attempt_here() -> Attempt | None:
    """Return the attempt that the calling thread or task belongs to; None outside of nodes.

    Raises NotInInstance in a thread whose run is over, or if it is unknown which run the thread belongs to.
    """
    attempt = current_attempt.get()
    if attempt is None and (run := run_here()) is not None:
        attempt = run.attempt
        if attempt is None:
            raise NotInInstance(f"dagorama was called by a thread of a node {OVER}")
    return attempt


# --- an open batch() block ----------------------------------------------------------------------


class Batch(Protocol):
    """The nodes that a `batch()` block has made so far."""

    over: bool

    def has_instance(self, instance: bytes) -> bool:
        """Return whether the block has made the instance."""
        ...


current_batch: ContextVar[Batch | None] = ContextVar("dagorama_current_batch", default=None)


def batch_here() -> Batch | None:
    """Return the open batch that this thread or task adds to; None if there is none."""
    batch = current_batch.get()
    return None if batch is None or batch.over else batch


def is_held_back(instance: bytes) -> bool:
    """Return whether the instance was made in a `batch()` block that has not ended."""
    batch = batch_here()
    return batch is not None and batch.has_instance(instance)
