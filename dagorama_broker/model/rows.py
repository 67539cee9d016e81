"""Defines the rows that one transaction writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from dagorama_broker.model.domain import Function


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
