"""Defines what the store reads back: at the start of a broker, for lookups and lists, and for retries."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from dagorama_broker.model.delays import NodeDelay
from dagorama_broker.model.domain import State
from dagorama_broker.model.hooks import HookRow
from dagorama_broker.model.key_pauses import KeyPauseRow
from dagorama_broker.model.rows import (
    CachedRow,
    EagerAttemptRow,
    FunctionRow,
    InstanceRow,
    NodeBlockRow,
    OutcomeRow,
    PausedQueueRow,
    ProgressRow,
    RebindingRow,
    TurnRow,
    UsedFailureRow,
)
from dagorama_broker.model.schedules import ScheduleRow
from dagorama_broker.model.signals import NO_MAIL, Mail

#: Characters of the message of a failure in `FailurePage`.
LONGEST_BEGINNING = 300


class Usage(NamedTuple):
    """The bytes that the files of a store take."""

    database: int
    log: int  #: of the database: what the next checkpoint moves into it
    values: int  #: large ones, with files that are being written
    free: int | None  #: what this user may still write to the file system of the database; None: unknown


class LiveNode(NamedTuple):
    """An unfinished node, without its arguments."""

    key: int
    instance: int
    function: int
    sources: bytes


class EndedNode(NamedTuple):
    """A node that has ended, or is RESOLVING, without its value."""

    key: int
    instance: int
    function: int
    state: int
    refs: bytes
    root_cause: int
    attempt: int = 0  #: the attempt whose result was recorded


@dataclass(slots=True)
class Live:
    """All that a broker reads at its start: unfinished nodes, and the ended ones that they depend on."""

    functions: list[FunctionRow]
    instances: list[InstanceRow]  #: with an unfinished node
    blocks: list[NodeBlockRow]  #: of those instances
    nodes: list[LiveNode]  #: in the order of their keys
    #: the RESOLVING ones of `nodes`, all ended nodes that `nodes` name as sources or promises, and all that the values
    #: of these name, directly or through others
    ended: list[EndedNode]
    progress: list[ProgressRow]
    keys: dict[int, str]  #: concurrency keys of `nodes` that have one
    rebound: dict[int, int]  #: functions of `nodes` that are bound to other code, by key
    workers: list[tuple[bytes, str]]  #: connected when the last broker stopped
    failed: set[int]  #: keys of `instances` with a failed or cancelled node
    next_node: int  #: smallest key never used
    next_instance: int
    next_function: int
    #: OPEN ones, and ones that depend on them, in the order of their attempts
    eager_attempts: list[EagerAttemptRow] = field(default_factory=list)
    eager_blocks: list[tuple[int, NodeBlockRow]] = field(
        default_factory=list
    )  #: blocks of their nodes, with their attempts
    rebindings: dict[int, RebindingRow] = field(default_factory=dict)  #: what allows `rebound`, by the node's key
    next_rebinding: int = 1
    next_worker: int = 1
    traces: dict[int, str] = field(default_factory=dict)  #: trace contexts of traced `blocks`, by their first keys
    paused: list[PausedQueueRow] = field(default_factory=list)
    delays: dict[int, NodeDelay] = field(default_factory=dict)  #: of `nodes` that have one, by key
    schedules: list[ScheduleRow] = field(default_factory=list)  #: by name
    cached: list[CachedRow] = field(default_factory=list)  #: of all instances, the oldest first
    hooks: dict[int, HookRow] = field(default_factory=dict)  #: of `instances` that have one, by their keys
    mail: Mail = NO_MAIL  #: of `instances`
    next_signal: int = 1
    turns: dict[int, TurnRow] = field(default_factory=dict)  #: of `instances` that have one, by key
    key_pauses: list[KeyPauseRow] = field(default_factory=list)  #: in the order of names and keys


class FoundNode(NamedTuple):
    """A node found by its ID in the store."""

    id: bytes  #: as asked for
    key: int
    instance: int
    function: int
    ended: EndedNode | None  #: None: it has not ended; RESOLVING ones have not
    sources: bytes = b""  #: keys, packed as in NodeRow


class StoredInstance(NamedTuple):
    row: InstanceRow
    ended: float | None
    failed: bool
    hook: HookRow | None = None  #: only if it was asked for
    mail: Mail = NO_MAIL  #: its signals, if it was read to be loaded into memory


class InstanceMarks(NamedTuple):
    """The ID, the labels and the fair key that a user has given to an instance."""

    name: str = ""  #: its ID within the definition; empty: it has none
    digest: bytes = b""  #: of what it was started with, if it has an ID
    labels: tuple[tuple[str, str], ...] = ()  #: in their order
    fair: str = ""  #: empty: it has none


class InstanceQuery(NamedTuple):
    """Which instances to list, the latest first."""

    before: int  #: only older ones than this key
    limit: int
    unfinished: bool = False  #: only unfinished ones; with `failed`, also failed ones
    failed: bool = False
    definition: str = ""  #: only of this one; empty: of any
    name: str = ""  #: only with this ID of the user's; empty: any
    labels: tuple[tuple[str, str], ...] = ()  #: only with all of these
    function: str = ""  #: only with a node of this function; empty: any
    error: str = ""  #: only with a node that failed with this in its type or message; empty: any

    @property
    def looks_into_nodes(self) -> bool:
        """Whether nodes of each instance are searched."""
        return bool(self.function or self.error)


class ListedInstances(NamedTuple):
    instances: list[StoredInstance]
    more: int  #: pass this as `before` for the next page; 0: this is the last


class StoredNode(NamedTuple):
    """All that is stored of a node except for its arguments and its value."""

    key: int
    function: int  #: the one that it is run as
    sources: bytes  #: keys, packed as in NodeRow
    outcome: OutcomeRow | None  #: without value and failure
    progress: ProgressRow | None
    used_failure: bool = False  #: it was given a failure as a value, and the failed node was retried since
    created: int = 0  #: microseconds since 1970
    creator: int = 0  #: key of the node whose attempt created it; 0: a client did


class FunctionCount(NamedTuple):
    """The nodes of one function of an instance that are in one state."""

    function: int
    state: int | None  #: None: they have not ended; RESOLVING ones have not either
    nodes: int
    first: int  #: the smallest of their keys
    timed: int  #: nodes whose run time is known
    microseconds: int  #: run time of these together
    longest: int  #: microseconds


class NodePlace(NamedTuple):
    """The place of a node by which people name it."""

    id: bytes
    instance: bytes  #: 16 bytes
    ordinal: int  #: among the nodes of its instance in the order of creation; the first is 1


class FailurePage(NamedTuple):
    """Nodes that failed by themselves, in the order of their keys, as columns."""

    keys: Sequence[int]
    ended: Sequence[float]  #: seconds since 1970
    functions: Sequence[str]  #: their names
    types: Sequence[str]  #: of their exceptions
    messages: Sequence[str]  #: at most `LONGEST_BEGINNING` characters of each
    downstream: Mapping[int, int]  #: numbers of nodes that failed because of these, by key, without zeros
    more: int  #: pass this as `after` for the next page; 0: this is the last


class StructureRow(NamedTuple):
    """A node as a vertex of the graph."""

    key: int
    function: int
    creator: int  #: key of the node whose attempt created it; 0: a client did
    sources: Sequence[int]  #: keys


class StructurePage(NamedTuple):
    rows: list[StructureRow]  #: in the order of their keys
    more: int  #: pass this as `after` for the next page; 0: this is the last


class FailedEnd(NamedTuple):
    """A node that failed or was cancelled."""

    key: int
    state: int
    root_cause: int


class FailedNode(NamedTuple):
    """An ended node that is retried, with everything that this requires."""

    key: int
    instance: int
    function: int
    sources: bytes  #: keys, packed as in NodeRow
    root_cause: int
    refs: bytes | None  #: packed keys of promises in its value; None: it has no value, or drops it and runs again
    failure: bytes | None  #: of the node that failed first
    state: int = State.FAILED
    dropped: int = 0  #: attempt whose value it drops; 0: none


class CreatedBlock(NamedTuple):
    """Children, direct or indirect, of a completed attempt whose node runs again."""

    block: NodeBlockRow
    root: int  #: key of the node that runs again
    eager_attempt: EagerAttemptRow | None  #: of the eager attempt that made them


def is_made(made: Sequence[CreatedBlock], key: int) -> bool:
    """Return whether a node is in one of these blocks, which are in the order of their keys."""
    place = bisect_right(made, key, key=attrgetter("block.first_key")) - 1
    return place >= 0 and key < made[place].block.first_key + made[place].block.size


class Edges(NamedTuple):
    """The dependencies of a node, and its outcome."""

    key: int
    sources: bytes  #: keys, packed as in NodeRow
    refs: bytes  #: keys of the promises in its value
    state: int | None  #: of its outcome; None: it has none

    @property
    def has_value(self) -> bool:
        """Whether it has returned; if it failed nevertheless, it was because of a promise in its value."""
        return self.state == State.COMPLETED or bool(self.refs)


class EdgesPage(NamedTuple):
    edges: list[Edges]  #: in the order of their keys
    more: int  #: pass this as `after` for the next page; 0: this is the last


@dataclass(slots=True)
class Failed:
    """Nodes that are retried, and what they depend on, all read at one moment.

    Without `reruns` these are failed nodes, and the nodes that failed because of them.
    """

    nodes: list[FailedNode]  #: in the order of their keys
    instances: list[StoredInstance]  #: of `nodes`
    blocks: list[NodeBlockRow]  #: that hold `nodes`
    ended: list[EndedNode]  #: ended nodes that `nodes` wait for, and nodes that their values name
    keys: dict[int, str]  #: concurrency keys of `nodes` that have one
    rebound: dict[int, int]  #: functions of `nodes` that are bound to other code, by key
    others: set[int]  #: keys of `instances` with other failed or cancelled nodes
    made: list[CreatedBlock] = field(default_factory=list)  #: by completed nodes that run again
    used: list[UsedFailureRow] = field(default_factory=list)  #: nodes that were given one of these failures as a value
    #: nodes that were given what one of these returned, or its failure, and wait for the promises that they returned
    resolving: set[int] = field(default_factory=set)
    rebindings: dict[int, RebindingRow] = field(default_factory=dict)  #: what allows `rebound`, by the node's key
    delays: dict[int, NodeDelay] = field(default_factory=dict)  #: of `nodes` that have one, by key
