"""The progress of an instance: how many nodes of each function are in which state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dagorama.models.log_record import NodeReport
from dagorama.models.state import State


@dataclass(frozen=True, slots=True)
class FunctionProgress:
    """The nodes of one function of an instance."""

    function: str  #: "package.module:Class.method"
    states: Mapping[State, int]  #: number of nodes in each state, without zeros
    timed: int = 0  #: ended nodes whose run time is known
    run_seconds: float = 0.0  #: run time of these together
    longest_seconds: float = 0.0

    @property
    def total(self) -> int:
        """The number of nodes. It grows while nodes create others."""
        return sum(self.states.values())

    @property
    def done(self) -> int:
        """The number of completed nodes."""
        return self.states.get(State.COMPLETED, 0)

    @property
    def failed(self) -> int:
        """The number of failed and cancelled nodes."""
        return self.states.get(State.FAILED, 0) + self.states.get(State.CANCELLED, 0)

    @property
    def running(self) -> int:
        """The number of nodes that a worker holds."""
        return self.states.get(State.CLAIMED, 0)

    @property
    def waiting(self) -> int:
        """The number of all other nodes: they wait for sources, a worker, a retry or the nodes that they returned."""
        return self.total - self.done - self.failed - self.running

    @property
    def mean_seconds(self) -> float | None:
        """The mean run time of the last attempts of ended nodes; None if none is known."""
        return self.run_seconds / self.timed if self.timed else None


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of an instance at one moment."""

    functions: tuple[FunctionProgress, ...]  #: in the order in which their first nodes were created; at most 1,000
    definition: str  #: "package.module:Class"
    created: float  #: seconds since 1970
    ended_at: float | None  #: seconds since 1970; None: it has unfinished nodes
    has_failed: bool  #: a node failed or was cancelled
    left_out: int = 0  #: functions that are not in `functions`
    reports: tuple[NodeReport, ...] = ()  #: of nodes that run, the latest first; at most 20

    @property
    def total(self) -> int:
        """The number of nodes that are known so far."""
        return sum(each.total for each in self.functions)

    @property
    def done(self) -> int:
        """The number of completed nodes."""
        return sum(each.done for each in self.functions)

    @property
    def failed(self) -> int:
        """The number of failed and cancelled nodes."""
        return sum(each.failed for each in self.functions)

    @property
    def running(self) -> int:
        """The number of nodes that workers hold."""
        return sum(each.running for each in self.functions)

    @property
    def waiting(self) -> int:
        """The number of all other nodes."""
        return sum(each.waiting for each in self.functions)
