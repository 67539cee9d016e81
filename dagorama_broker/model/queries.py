"""Defines what the store reads back: at the start of a broker, for lookups and lists, and for retries."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from dagorama_broker.model.domain import State
from dagorama_broker.model.rows import (
    AdoptionRow,
    BroodRow,
    FunctionRow,
    InstanceRow,
    OutcomeRow,
    ProgressRow,
    RunRow,
    UsedFailureRow,
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
