"""What the broker's heart and its store speak of: states, functions, and the rows that are kept. Records, no rules."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from operator import attrgetter
from typing import NamedTuple


class State(IntEnum):
    """A node's state; the numbers are those of the wire and of the store."""

    WAITING = 0  #: for sources
    QUEUED = 1  #: for a worker
    CLAIMED = 2  #: by a worker
    RESOLVING = 3  #: it returned promises that are not kept yet
    BACKOFF = 4  #: until its next run
    COMPLETED = 5
    FAILED = 6
    CANCELLED = 7


#: Failures of earlier runs that are kept with the last one.
EARLIER = 10
#: Characters of the traceback of each.
EARLIER_BYTES = 16 << 10

ENDED = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})


class World(IntEnum):
    """Whose calls made a node: nodes go only to workers of their own world."""

    OURS = 0
    ORIGINAL = 1


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed run is followed by another. Seconds throughout."""

    max_attempts: int
    interval: float = 0.0  #: before the second run
    base: float = 1.0  #: each later pause is this times the one before
    max_interval: float = 0.0  #: cap; 0: none
    jitter: float = 0.0  #: at most this much is added


@dataclass(frozen=True, slots=True)
class Function:
    """What a node runs and under which rules; interned, so that a node holds one number."""

    name: str
    hash: str
    queue: str
    taint: str = ""
    retry: RetryPolicy | None = None
    is_async: bool = False
    world: World = World.OURS
    timeout: float = 0.0  #: seconds that a run may take; 0: any time
    queue_timeout: float = 0.0  #: seconds that a node may be queued before it fails; 0: for ever
    priority: int = 0  #: within its instance; higher goes first
    max_concurrency: int = 0  #: nodes claimed at once, by all workers; 0: any number
    delay: float = 0.0  #: seconds between being ready and the first run
    max_deaths: int = 0  #: child processes that end while they run a node, before it fails; 0: the broker's default
    eager: bool = False  #: what a run makes is visible at once, and cancelled where the run comes to nothing
    timeout_is_final: bool = False  #: a run that was stopped at its timeout is followed by no other
    key_id: str = ""  #: the signing key of its nodes' arguments, in hexadecimal; empty: they are unsigned
    class_code: str = ""  #: hashes of all methods of its class, which nodes made by its runs are bound to; opaque here
    #: the signing key of the adoptions that allow its nodes to be run by this code, in hexadecimal; empty: they were
    #: made with it
    adopted_under: str = ""

    @property
    def code(self) -> str:
        """The code that the arguments of its nodes are signed for."""
        return f"{self.hash} {self.class_code}" if self.class_code else self.hash


class FunctionRow(NamedTuple):
    id: int
    function: Function


class InstanceRow(NamedTuple):
    key: int  #: also its place in the order: smaller is older
    id: bytes  #: 16 bytes
    definition: str
    entry: bytes  #: 16-byte node id, or empty
    created: float  #: seconds since 1970


class InstanceEnd(NamedTuple):
    """An instance has no unfinished node left; or, with `ended` None, it has one, and may have failed already."""

    key: int
    ended: float | None  #: seconds since 1970
    failed: bool


class RunRow(NamedTuple):
    """Nodes that one maker made in one message: counters and keys both count up from the first."""

    origin: bytes  #: 12 bytes
    first: int
    size: int
    first_key: int
    instance: int
    digest: bytes  #: of what was submitted; empty for the children of an attempt
    maker: int = 0  #: key of the node whose attempt made them; 0: a spawner did


class NodeRow(NamedTuple):
    key: int
    instance: int
    function: int
    sources: bytes  #: keys, packed as little-endian 64-bit integers; negative where a failure is handed over
    arguments: bytes


class OutcomeRow(NamedTuple):
    """The one recorded result of a node. State RESOLVING: the value is there, what it names is not yet."""

    key: int
    state: int
    attempt: int
    refs: bytes  #: keys of the promises in the value, packed as above
    value: bytes | None
    culprit: int  #: key of the node whose failure this is; 0: none
    failure: bytes | None  #: opaque; on the culprit itself only
    ended: float  #: seconds since 1970


class ResolvedRow(NamedTuple):
    """A RESOLVING outcome has ended."""

    key: int
    state: int
    culprit: int
    ended: float


class ProgressRow(NamedTuple):
    """What went wrong so far with a node that has not ended."""

    key: int
    runs: int  #: that failed
    deaths: int  #: of a child process while it ran
    lost: int  #: workers or connections
    retry_at: float  #: seconds since 1970; 0: not in BACKOFF
    failure: bytes | None  #: the last one, opaque
    pause: float = 0.0  #: seconds between when it was written and `retry_at`
    attempt: int = 0  #: up to which this is counted; who reports an older one is refused
    lost_attempt: int = 0  #: the last loss was counted for it, and is taken back if its worker returns with it; 0: none


class RevivedRow(NamedTuple):
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


class AdoptionRow(NamedTuple):
    """What a holder of a signing key has signed so that nodes may be run by other code; opaque to the store."""

    id: int
    signed: bytes


class DraftRow(NamedTuple):
    """Keys of nodes that a call is making, and of which rows may be written before the call is decided."""

    first_key: int
    last_key: int


class AdoptedRow(NamedTuple):
    """A node is run by other code than it was made with: as this function, until the next such row of it."""

    key: int
    function: int
    #: of the row that allows it; 0: none does, since the node is run by the code that it was made with again
    adoption: int = 0


class Adoption(NamedTuple):
    """What a signed adoption says. The broker holds no key: it goes by this, and workers check it."""

    function: str  #: its name
    made_with: frozenset[str]  #: codes, as `Function.code`
    hash: str  #: of the code that may run the nodes; empty: that which workers have when they are offered one
    instance: bytes  #: only nodes of this one; empty: of all
    key_id: str  #: of the key that signed it, in hexadecimal
    signed: bytes  #: all of this, as it came


class LinkRow(NamedTuple):
    """A value of one instance names a node of another, which is therefore kept as long."""

    instance: int
    named: int  #: the other's key


class RemovedRow(NamedTuple):
    """An instance whose time is over; in a store its rows go one portion after the other."""

    key: int
    id: bytes
    ended: float  #: seconds since 1970
    failed: bool
    kept: float  #: seconds that it was kept for


class KeyRow(NamedTuple):
    """The concurrency key of a node that has one."""

    key: int
    concurrency_key: str


class Fate(IntEnum):
    """What has become of an attempt whose nodes others saw while it ran."""

    OPEN = 0  #: it may still come to nothing
    RELEASED = 1  #: it has completed: what it made is simply there, or goes the way of the brood its node is of
    DEAD = 2  #: it came to nothing; what it made and had not ended by then was cancelled


class BroodRow(NamedTuple):
    """An attempt that has made nodes which are cancelled where it, or one that it goes back to, comes to nothing."""

    attempt: int
    node: int  #: whose attempt it is
    within: int  #: attempt of the brood that this node is of; 0: of none
    fate: int


class BroodRunRow(NamedTuple):
    """A run of nodes that such an attempt has made."""

    first_key: int
    attempt: int


@dataclass(slots=True)
class Changes:
    """What one transaction holds, in the order in which the heart made it."""

    functions: list[FunctionRow] = field(default_factory=list)
    instances: list[InstanceRow] = field(default_factory=list)
    instance_ends: list[InstanceEnd] = field(default_factory=list)
    runs: list[RunRow] = field(default_factory=list)
    nodes: list[NodeRow] = field(default_factory=list)
    drafts: list[DraftRow] = field(default_factory=list)  #: that are begun
    given_up: list[DraftRow] = field(default_factory=list)  #: nodes, by their keys, that are not made after all
    drafts_over: list[int] = field(default_factory=list)  #: first keys of drafts that are made, or gone
    revived: list[RevivedRow] = field(default_factory=list)  #: before `outcomes`: it may fail again at once
    outcomes: list[OutcomeRow] = field(default_factory=list)
    resolved: list[ResolvedRow] = field(default_factory=list)
    progress: list[ProgressRow] = field(default_factory=list)
    large: list[LargeRow] = field(default_factory=list)
    keys: list[KeyRow] = field(default_factory=list)
    broods: list[BroodRow] = field(default_factory=list)  #: a later row of an attempt takes an earlier one's place
    brood_runs: list[BroodRunRow] = field(default_factory=list)
    adoptions: list[AdoptionRow] = field(default_factory=list)  #: named by `adopted`
    adopted: list[AdoptedRow] = field(default_factory=list)
    used_failures: list[UsedFailureRow] = field(default_factory=list)
    links: list[LinkRow] = field(default_factory=list)
    removed: list[RemovedRow] = field(default_factory=list)
    functions_gone: list[int] = field(default_factory=list)  #: ids of functions that no node names any more
    workers_joined: list[tuple[bytes, str]] = field(default_factory=list)  #: id, name
    workers_left: list[bytes] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.nodes or self.outcomes or self.runs or self.instances or self.progress or self.resolved
            or self.functions or self.instance_ends or self.large or self.workers_joined or self.workers_left
            or self.removed or self.broods or self.revived or self.adopted or self.used_failures or self.functions_gone
            or self.drafts or self.given_up or self.drafts_over
        )


class LiveNode(NamedTuple):
    """A node that has not ended, without its payload."""

    key: int
    instance: int
    function: int
    sources: bytes


class EndedNode(NamedTuple):
    """What the heart must know of a node that has ended (or whose value waits: RESOLVING), without its payload."""

    key: int
    instance: int
    function: int
    state: int
    refs: bytes
    culprit: int
    attempt: int = 0  #: the recorded one


@dataclass(slots=True)
class Live:
    """What a broker reads back at its start: all that has not ended and the ended nodes that it depends on."""

    functions: list[FunctionRow]
    instances: list[InstanceRow]  #: with an unfinished node
    runs: list[RunRow]  #: of those instances
    nodes: list[LiveNode]  #: in the order of their keys
    #: the RESOLVING ones of `nodes`, and all ended nodes that `nodes` name as sources or promises, and those that the
    #: values of these name, and so on (closed under `refs`)
    ended: list[EndedNode]
    progress: list[ProgressRow]
    keys: dict[int, str]  #: concurrency keys of `nodes` that have one
    adopted: dict[int, int]  #: the functions as which those of `nodes` are run that were adopted
    workers: list[tuple[bytes, str]]  #: connected when the last broker stopped
    failed: set[int]  #: keys of `instances` with a node that ended badly
    next_node: int  #: smallest key never used
    next_instance: int
    next_function: int
    #: the OPEN ones, and those that go back to one, in the order of their attempts
    broods: list[BroodRow] = field(default_factory=list)
    brood_runs: list[tuple[int, RunRow]] = field(default_factory=list)  #: theirs, with the attempt that made each
    adoptions: dict[int, AdoptionRow] = field(default_factory=dict)  #: what allows `adopted`, by the node's key
    next_adoption: int = 1


class FoundNode(NamedTuple):
    """A node found by its id, in memory no more or never."""

    id: bytes  #: as asked for
    key: int
    instance: int
    function: int
    ended: EndedNode | None  #: None: it has not ended (a RESOLVING one has not)
    sources: bytes = b""  #: keys, packed as in NodeRow


#: The type that the failure of a cancelled node has; clients know it.
CANCELLATION = "dagorama.errors.NodeCancelled"


class Failure(NamedTuple):
    """Why a node failed; kept with the node itself, named by its descendants."""

    function: str
    type: str
    message: str
    traceback: str
    exception: bytes  #: pickled by the worker, where it could be; never opened here
    attempts: int
    earlier: tuple[tuple[str, str, str], ...] = ()  #: type, message and traceback of the runs before, oldest first

    def after(self, before: Failure) -> Failure:
        """The same with what went wrong before it; of many runs the last are kept."""
        earlier = (*before.earlier, (before.type, before.message, before.traceback[-EARLIER_BYTES:]))
        return self._replace(earlier=earlier[-EARLIER:])

    def packed(self) -> bytes:
        plain = [*self[:4], b64encode(self.exception).decode(), self.attempts, self.earlier]
        return json.dumps(plain).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> Failure:
        function, type, message, traceback, exception, attempts, earlier = json.loads(data)
        return cls(
            function, type, message, traceback, b64decode(exception), attempts, tuple(tuple(run) for run in earlier)
        )


class StoredInstance(NamedTuple):
    row: InstanceRow
    ended: float | None
    failed: bool


class AskedInstances(NamedTuple):
    """Which instances a list is to have; the latest first."""

    before: int  #: only older ones than this key
    limit: int
    unfinished: bool = False  #: only those; with `failed`, those that are either
    failed: bool = False
    definition: str = ""  #: only of this one; empty: of any


class ListedInstances(NamedTuple):
    instances: list[StoredInstance]
    more: int  #: to be asked for as `before`; 0: there are no more


class StoredNode(NamedTuple):
    """All that is kept of a node but its payloads."""

    key: int
    function: int  #: as which it is run
    sources: bytes  #: keys, packed as in NodeRow
    outcome: OutcomeRow | None  #: without value and failure
    progress: ProgressRow | None
    used_failure: bool = False  #: it was given a failure as a value that has been retried since


class BadEnd(NamedTuple):
    """A node that failed or was cancelled."""

    key: int
    state: int
    culprit: int


class FailedNode(NamedTuple):
    """An ended node that becomes unfinished again, with everything that this takes."""

    key: int
    instance: int
    function: int
    sources: bytes  #: keys, packed as in NodeRow
    culprit: int
    refs: bytes | None  #: of its value; None: it has none, or drops it and runs again
    failure: bytes | None  #: the culprit's own
    state: int = State.FAILED
    dropped: int = 0  #: attempt of the value that it drops to run again; 0: it drops none


class MadeRun(NamedTuple):
    """Nodes that were made, directly or through others, by a completed attempt whose node runs again."""

    run: RunRow
    root: int  #: key of the node that runs again
    brood: BroodRow | None  #: of the eager attempt that made them


def is_made(made: Sequence[MadeRun], key: int) -> bool:
    """Whether a node is in one of these runs, which are in the order of their keys."""
    place = bisect_right(made, key, key=attrgetter("run.first_key")) - 1
    return place >= 0 and key < made[place].run.first_key + made[place].run.size


class Edges(NamedTuple):
    """What a node depends on, and how it has ended."""

    key: int
    sources: bytes  #: keys, packed as in NodeRow
    refs: bytes  #: keys of the promises in its value
    state: int | None  #: of its outcome; None: it has none

    @property
    def has_value(self) -> bool:
        """Whether it has returned: then it failed, if it failed, because of a promise in its value."""
        return self.state == State.COMPLETED or bool(self.refs)


class EdgesPage(NamedTuple):
    edges: list[Edges]  #: in the order of their keys
    more: int  #: pass this as `after`; 0: there are no more


@dataclass(slots=True)
class Failed:
    """Nodes that become unfinished again, and what they depend on, all read at one moment.

    Without `reruns` these are the nodes that failed because of some culprits, including the culprits.
    """

    nodes: list[FailedNode]  #: in the order of their keys
    instances: list[StoredInstance]  #: of `nodes`
    runs: list[RunRow]  #: that hold `nodes`
    ended: list[EndedNode]  #: what `nodes` wait for, as far as it has ended, closed under `refs`
    keys: dict[int, str]  #: concurrency keys of `nodes` that have one
    adopted: dict[int, int]  #: the functions as which those of `nodes` are run that were adopted
    others: set[int]  #: keys of `instances` in which further nodes have failed or were cancelled
    made: list[MadeRun] = field(default_factory=list)  #: by completed nodes that run again
    used: list[UsedFailureRow] = field(default_factory=list)  #: nodes that were given one of these failures as a value
    #: nodes that were given what one of these returned, or its failure, and wait for the promises that they returned
    resolving: set[int] = field(default_factory=set)
    adoptions: dict[int, AdoptionRow] = field(default_factory=dict)  #: what allows `adopted`, by the node's key
