"""Defines the scheduler's objects in memory: nodes, slots and workers. The scheduler owns and changes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagorama_broker.model.delays import NodeDelay
from dagorama_broker.model.domain import ENDED, State
from dagorama_broker.model.rows import pack_keys
from dagorama_broker.model.signals import WaitRow
from dagorama_broker.scheduler.instances import Instance, NodeBlock
from dagorama_broker.scheduler.mismatch import Mismatch, mismatch
from dagorama_broker.scheduler.queues import FunctionQueue
from dagorama_broker.scheduler.requests import WorkerInfo

if TYPE_CHECKING:
    from dagorama_broker.scheduler.pools import Pool


class FailureCounts:
    """Counts the failed attempts of a node; most nodes never have one."""

    __slots__ = ("crashes", "failed_attempts", "failure", "lost_attempt", "note", "pause", "retry_at", "worker_losses")

    def __init__(self, failed_attempts: int = 0, crashes: int = 0, worker_losses: int = 0) -> None:
        self.failed_attempts = failed_attempts
        self.crashes = crashes
        self.worker_losses = worker_losses
        self.lost_attempt = 0  #: attempt of the last counted loss; 0: none, or it was uncounted
        self.failure: bytes | None = None  #: the last one; `Graph.keep_failure` sets it
        self.retry_at = 0.0  #: the scheduler's clock; 0: not in BACKOFF
        self.pause = 0.0  #: seconds of that BACKOFF
        self.note = ""  #: the reason of that BACKOFF, if it is neither a failure nor a delay; not stored

    @property
    def attempts(self) -> int:
        """The attempts that have failed or were lost."""
        return self.failed_attempts + self.crashes + self.worker_losses


@dataclass(eq=False, slots=True)
class Reservation:
    """Keys that a large call has reserved; it stands for the call while its names are reserved too."""

    first_key: int
    first_instance: int


NONE: frozenset[int] = frozenset()


class RareFacts:
    """Facts about few nodes, as an object of its own, so that a million other nodes do not have fields for them."""

    __slots__ = ("delay", "failures", "root_cause", "tolerates", "twin", "wait")

    def __init__(self) -> None:
        self.tolerates = NONE
        self.root_cause: Node | None = None
        self.failures: FailureCounts | None = None
        self.delay: NodeDelay | None = None
        self.twin: Node | None = None
        self.wait: WaitRow | None = None


#: Value of `Node.pending` for a node that is made and has not begun to wait for its sources.
UNSTARTED = -1


class Node:
    """An unfinished node, or an ended one that an unfinished one references."""

    __slots__ = (
        "attempt",
        "block",
        "consumers",
        "dependents",
        "instance",
        "key",
        "pending",
        "queue",
        "rare",
        "refs",
        "slot",
        "sources",
        "state",
    )

    def __init__(
        self, key: int, instance: Instance, queue: FunctionQueue, block: NodeBlock | None, state: State = State.WAITING
    ) -> None:
        self.key = key
        self.instance = instance
        self.queue = queue
        self.block = block
        self.state = state
        self.attempt = 0  #: the last one; 0: none by this broker
        self.slot: Slot | None = None
        self.pending = 0  #: sources (WAITING) or promises (RESOLVING) that have not ended
        self.consumers = 0  #: unfinished nodes that will be given its value
        self.sources: tuple[Node, ...] = ()
        self.refs: tuple[Node, ...] = ()  #: promises in its value
        self.dependents: list[Node] | None = None  #: nodes that wait for it
        self.rare: RareFacts | None = None

    @property
    def tolerates(self) -> frozenset[int]:
        """The keys of sources whose failure it takes as a value."""
        return NONE if self.rare is None else self.rare.tolerates

    @tolerates.setter
    def tolerates(self, keys: frozenset[int]) -> None:
        if keys or self.rare is not None:
            self._with_rare().tolerates = keys

    @property
    def root_cause(self) -> Node | None:
        """The upstream node that failed first; None: the node itself."""
        return None if self.rare is None else self.rare.root_cause

    @root_cause.setter
    def root_cause(self, node: Node | None) -> None:
        if node is not None or self.rare is not None:
            self._with_rare().root_cause = node

    @property
    def failures(self) -> FailureCounts | None:
        """The counts of its failed attempts; None: it had none."""
        return None if self.rare is None else self.rare.failures

    @failures.setter
    def failures(self, counts: FailureCounts | None) -> None:
        if counts is not None or self.rare is not None:
            self._with_rare().failures = counts

    @property
    def delay(self) -> NodeDelay | None:
        """When it starts at the earliest, if its call said so."""
        return None if self.rare is None else self.rare.delay

    @delay.setter
    def delay(self, delay: NodeDelay | None) -> None:
        if delay is not None or self.rare is not None:
            self._with_rare().delay = delay

    @property
    def twin(self) -> Node | None:
        """The node that it waits for, or has waited for, because that one computes the same; see `caching`."""
        return None if self.rare is None else self.rare.twin

    @twin.setter
    def twin(self, node: Node | None) -> None:
        if node is not None or self.rare is not None:
            self._with_rare().twin = node

    @property
    def wait(self) -> WaitRow | None:
        """The signal that it waits for; None: it is run by a worker."""
        return None if self.rare is None else self.rare.wait

    @wait.setter
    def wait(self, wait: WaitRow | None) -> None:
        self._with_rare().wait = wait

    def packed_sources(self) -> bytes:
        """Return the packed keys of its sources; negative if it takes their failure as a value."""
        if not self.sources:
            return b""
        tolerates = self.tolerates
        return pack_keys([-source.key if source.key in tolerates else source.key for source in self.sources])

    def _with_rare(self) -> RareFacts:
        if self.rare is None:
            self.rare = RareFacts()
        return self.rare

    @property
    def unfinished_sources(self) -> list[Node]:
        """Its sources that have not ended."""
        return [source for source in self.sources if source.state not in ENDED]


class Slot:
    """A child process of a worker: it runs one sync node at a time, and async ones at the same time."""

    __slots__ = ("asked", "async_us", "closed", "held", "index", "progress_at", "sync_us", "worker")

    def __init__(self, worker: Worker, index: int) -> None:
        self.worker = worker
        self.index = index
        self.held: dict[int, tuple[Node, int]] = {}  #: attempt -> node and its cost, in the order granted
        self.sync_us = self.async_us = 0  #: estimated work of the sync, and async, nodes that it holds; 0: none
        self.progress_at = 0.0  #: when the running node began, as far as is known
        self.closed = False  #: gone for good
        self.asked = False  #: a take-back was requested and nothing has changed since


class Worker:
    __slots__ = ("deployed", "heard_at", "info", "lease", "number", "pool", "refuses", "slots")

    def __init__(self, presence: WorkerInfo, number: int, now: float, lease: float) -> None:
        self.info = presence
        self.number = number  #: by which outcomes refer to its name
        self.heard_at = now
        self.lease = lease
        self.slots = [Slot(self, index) for index in range(presence.slots)]
        self.pool: Pool | None = None  #: None: it is granted nothing more
        self.refuses: dict[int, Mismatch] = {}  #: by the id of a function: why this worker gave such a node back
        self.deployed: dict[int, str] = {}  #: by the id of a function: hash of the code that it has instead

    def mismatch(self, queue: FunctionQueue) -> Mismatch | None:
        """Return why this worker may not run nodes of this function; None: it may."""
        return mismatch(self.info, queue.function) or self.refuses.get(queue.id)
