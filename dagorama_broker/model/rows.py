"""Defines the rows that one transaction writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from dagorama_broker.model.actions import ActionRow
from dagorama_broker.model.delays import DelayRow
from dagorama_broker.model.domain import Function
from dagorama_broker.model.hooks import HookRow
from dagorama_broker.model.key_pauses import KeyPauseRow, PausedKey
from dagorama_broker.model.schedules import ScheduleRow
from dagorama_broker.model.signals import SignalRow, WaitRow


class FunctionRow(NamedTuple):
    id: int
    function: Function


class InstanceRow(NamedTuple):
    key: int  #: also its place in the order: smaller is older
    id: bytes  #: 16 bytes
    definition: str
    entry: bytes  #: 16-byte node ID, or empty
    created: float  #: seconds since 1970
    priority: int = 0  #: before the order of creation; higher goes first


class NameRow(NamedTuple):
    """The ID that a user has given to an instance. No two instances of a definition have the same one."""

    instance: int
    definition: str
    name: str
    digest: bytes  #: of what it was started with


class LabelRow(NamedTuple):
    instance: int
    label: str
    value: str


class TurnRow(NamedTuple):
    """The turn of an instance, if it is not its key."""

    instance: int
    fair: str  #: the key whose turn it is; empty: of instances without one
    turn: int


class InstanceEnd(NamedTuple):
    """An instance has no unfinished node left; or, with `ended` None, it has one, and may have failed already."""

    key: int
    ended: float | None  #: seconds since 1970
    failed: bool


class NodeBlockRow(NamedTuple):
    """Nodes that one node or client created with one message: counters and keys both count up from the first."""

    origin: bytes  #: 12 bytes
    first: int
    size: int
    first_key: int
    instance: int
    digest: bytes  #: of what was submitted; empty for the children of an attempt
    creator: int = 0  #: key of the node whose attempt made them; 0: a client did
    created: int = 0  #: microseconds since 1970


class NodeRow(NamedTuple):
    key: int
    instance: int
    function: int
    sources: bytes  #: packed keys; negative if the node takes a failure of that source as a value
    arguments: bytes


class OutcomeRow(NamedTuple):
    """The one recorded result of a node. In state RESOLVING, the value names nodes that have not ended."""

    key: int
    state: int
    attempt: int
    refs: bytes  #: packed keys of the promises in the value
    value: bytes | None
    root_cause: int  #: key of the node whose failure this is; 0: none
    failure: bytes | None  #: opaque; only in the row of the node that failed first
    ended: float  #: seconds since 1970
    microseconds: int = 0  #: how long the attempt ran; 0: unknown, or there was none
    worker: int = 0  #: number of the worker that ran it, see `WorkerNameRow`; 0: none did
    returned: float = 0.0  #: not written: when it returned, seconds since 1970, if it was RESOLVING before it ended


class ResolvedRow(NamedTuple):
    """A RESOLVING outcome has ended."""

    key: int
    state: int
    root_cause: int
    ended: float


class ProgressRow(NamedTuple):
    """The failed attempts of an unfinished node."""

    key: int
    failed_attempts: int  #: failed attempts
    crashes: int  #: of child processes while they ran it
    worker_losses: int  #: workers or connections lost while they held it
    retry_at: float  #: seconds since 1970; 0: not in BACKOFF
    failure: bytes | None  #: the last one, opaque
    pause: float = 0.0  #: seconds from the write until `retry_at`
    attempt: int = 0  #: the last one counted here; reports of older ones are refused
    lost_attempt: int = 0  #: attempt of the last counted loss, uncounted if its worker returns with it; 0: none


class RetriedRow(NamedTuple):
    """An ended node is unfinished again: its outcome is deleted, or it keeps its value and waits for its promises."""

    key: int
    state: int  #: WAITING or RESOLVING


class UsedFailureRow(NamedTuple):
    """A node was given a failure as a value, and the failed node has been retried since.

    The row is deleted when the node itself runs again.
    """

    key: int
    instance: int


class LargeRow(NamedTuple):
    """A node's arguments or value name a large value."""

    key: int
    sha256: bytes


class RebindingRow(NamedTuple):
    """A signed permission to run nodes by other code; opaque to the store."""

    id: int
    signed: bytes


class DraftRow(NamedTuple):
    """Keys of nodes that a large call is making; their rows may be written before the call is accepted."""

    first_key: int
    last_key: int


class ReboundRow(NamedTuple):
    """A node is run by other code than it was made with: as this function, until its next such row."""

    key: int
    function: int
    #: ID of the row that allows it; 0: none, the node is run by its original code again
    rebinding: int = 0


class LinkRow(NamedTuple):
    """A value of one instance names a node of another, which must be kept as long."""

    instance: int
    named: int  #: the other's key


#: The value of `RemovedRow.kept` of an instance that was not removed because of its age.
DELETED = -1.0


class RemovedRow(NamedTuple):
    """An instance whose retention is over; the store deletes its rows in portions."""

    key: int
    id: bytes
    ended: float  #: seconds since 1970
    failed: bool
    kept: float  #: seconds that it was kept for; `DELETED`: until a user deleted it


class KeyRow(NamedTuple):
    key: int
    concurrency_key: str


class WorkerNameRow(NamedTuple):
    """The name of a worker, by the number under which outcomes refer to it. Names outlive their workers."""

    number: int
    name: str


class PausedQueueRow(NamedTuple):
    """A queue whose nodes are not granted."""

    queue: str
    since: float  #: seconds since 1970
    by: str  #: name of the token of the caller who paused it; empty: the broker requires none


class EagerAttemptRow(NamedTuple):
    """An attempt whose children are cancelled if it, or an attempt that it depends on, fails."""

    attempt: int
    node: int  #: whose attempt it is
    parent: int  #: attempt that made this node, if its children depend on it; 0: none
    eager_state: int


class EagerBlockRow(NamedTuple):
    """A block of nodes that such an attempt made."""

    first_key: int
    attempt: int


class TraceRow(NamedTuple):
    """The trace context of what created a block of nodes; opaque to the broker."""

    first_key: int
    trace: str


class CachedRow(NamedTuple):
    """A node has the value of a cache key. The row is deleted with the node's instance."""

    key: bytes  #: 32 bytes, opaque
    function: str  #: name of the function that the node runs
    function_id: int
    instance: int
    instance_id: bytes
    node: int
    node_id: bytes
    completed: float  #: seconds since 1970
    expires: float  #: seconds since 1970; 0: never
    has_refs: int  #: 1 if the value names other nodes, else 0
    proof: bytes  #: that the node has the value; opaque


@dataclass(slots=True)
class Changes:
    """The rows of one transaction, in the order in which the scheduler made them."""

    functions: list[FunctionRow] = field(default_factory=list)
    instances: list[InstanceRow] = field(default_factory=list)
    names: list[NameRow] = field(default_factory=list)
    labels: list[LabelRow] = field(default_factory=list)
    instance_ends: list[InstanceEnd] = field(default_factory=list)
    blocks: list[NodeBlockRow] = field(default_factory=list)
    nodes: list[NodeRow] = field(default_factory=list)
    drafts: list[DraftRow] = field(default_factory=list)  #: that have begun
    given_up: list[DraftRow] = field(default_factory=list)  #: nodes of refused drafts, by their keys
    drafts_over: list[int] = field(default_factory=list)  #: first keys of drafts that were accepted, or given up
    retried: list[RetriedRow] = field(default_factory=list)  #: before `outcomes`: it may fail again at once
    outcomes: list[OutcomeRow] = field(default_factory=list)
    resolved: list[ResolvedRow] = field(default_factory=list)
    progress: list[ProgressRow] = field(default_factory=list)
    large: list[LargeRow] = field(default_factory=list)
    keys: list[KeyRow] = field(default_factory=list)
    delays: list[DelayRow] = field(default_factory=list)
    eager_attempts: list[EagerAttemptRow] = field(
        default_factory=list
    )  #: a later row of an attempt replaces an earlier one
    eager_blocks: list[EagerBlockRow] = field(default_factory=list)
    traces: list[TraceRow] = field(default_factory=list)  #: of `blocks` that are traced
    rebindings: list[RebindingRow] = field(default_factory=list)  #: named by `rebound`
    rebound: list[ReboundRow] = field(default_factory=list)
    used_failures: list[UsedFailureRow] = field(default_factory=list)
    links: list[LinkRow] = field(default_factory=list)
    removed: list[RemovedRow] = field(default_factory=list)
    functions_gone: list[int] = field(default_factory=list)  #: IDs of functions that no node names
    workers_joined: list[tuple[bytes, str]] = field(default_factory=list)  #: ID, name
    workers_left: list[bytes] = field(default_factory=list)
    worker_names: list[WorkerNameRow] = field(default_factory=list)
    paused: list[PausedQueueRow] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)  #: names of queues; before `paused`
    actions: list[ActionRow] = field(default_factory=list)
    schedules: list[ScheduleRow] = field(default_factory=list)  #: new ones and changed ones, with their last rows
    schedules_gone: list[str] = field(default_factory=list)  #: names; before `schedules`
    uncached: list[bytes] = field(default_factory=list)  #: cache keys; before `cached`
    cached: list[CachedRow] = field(default_factory=list)  #: a later row of a key replaces an earlier one
    hooks: list[HookRow] = field(default_factory=list)  #: a later row of an instance replaces an earlier one
    waits: list[WaitRow] = field(default_factory=list)  #: a later row of a node replaces an earlier one
    signals: list[SignalRow] = field(default_factory=list)  #: a later row of a number replaces an earlier one
    signals_gone: list[int] = field(default_factory=list)  #: their numbers; after `signals`
    turns: list[TurnRow] = field(default_factory=list)  #: of `instances` that have one
    key_pauses_over: list[PausedKey] = field(default_factory=list)  #: before `key_pauses`
    key_pauses: list[KeyPauseRow] = field(default_factory=list)  #: a later row of a key replaces an earlier one

    def __bool__(self) -> bool:
        return any(getattr(self, table) for table in self.__slots__)
