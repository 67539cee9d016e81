"""Defines limits of calls and nodes, and time spans."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import dataclass

from dagorama_broker.errors import ResourceExhausted

#: Nodes that one step starts, notifies or takes from their pause; the rest is done in the following steps.
STEP = 5_000
#: Keys that a start leaves out. Nodes may be granted before they are stored, and their keys must not be used again.
KEYS_LEFT_OUT = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    sources_per_node: int = 1_000_000
    nodes_per_attempt: int = 1_000_000
    bytes_per_attempt: int = 256 << 20
    memory_per_attempt: int = 512 << 20  #: bytes of memory that the children of one attempt take
    staged_memory: int = 4 << 30  #: bytes of memory that children of all running attempts take
    deaths: int = 3  #: deaths of child processes that run a node, after which it fails
    losses: int = 20  #: losses of workers or connections that hold a node, after which it fails
    longest_traceback: int = 256 << 10  #: characters of a traceback that are stored
    step: int = STEP
    large: int = 16_000  #: nodes and references from which a call is made in slices

    def is_large(self, weight: int) -> bool:
        """Return whether a call with this many nodes and references is made in slices."""
        return weight > self.large

    def check_attempt(self, nodes: int, size: int) -> None:
        """Raise ResourceExhausted if one attempt makes more nodes, or with larger arguments, than allowed."""
        if nodes > self.nodes_per_attempt:
            raise ResourceExhausted(f"it made {nodes} nodes; {self.nodes_per_attempt} are allowed")
        if size > self.bytes_per_attempt:
            raise ResourceExhausted(f"its nodes carry {size} bytes; {self.bytes_per_attempt} are allowed")

    def too_much_staged(self, of_attempt: int, of_all: int) -> str:
        """Return why children of an attempt, or of all attempts, take too many bytes of memory; empty: they do not."""
        if of_attempt > self.memory_per_attempt:
            return (
                f"its nodes take {of_attempt} bytes of the broker's memory; {self.memory_per_attempt} are allowed:"
                " have several nodes make them"
            )
        if of_all > self.staged_memory:
            return (
                f"children of running nodes take {of_all} bytes of the broker's memory; {self.staged_memory} are"
                " allowed for all of them: have fewer nodes make children at once, or give the broker more memory"
            )
        return ""

    def check_promises(self, named: Sized) -> None:
        """Raise ResourceExhausted if a result names too many promises."""
        if len(named) > self.sources_per_node:
            raise ResourceExhausted(f"it names {len(named)} promises; {self.sources_per_node} are allowed")

    def check_sources(self, sources: Iterable[Sized] | None) -> None:
        """Raise ResourceExhausted if a node has too many sources."""
        if sources is not None and max(map(len, sources), default=0) > self.sources_per_node:
            raise ResourceExhausted(f"a node has more than {self.sources_per_node} sources")


@dataclass(frozen=True, slots=True)
class Timing:
    """Defines time spans, in seconds."""

    lease: float = 30.0
    original_lease: float = 90.0
    reconnect_wait: float = 2.0  #: for workers to reconnect: after a restart, or if one is lost often

    @property
    def shortest_lease(self) -> float:
        return min(self.lease, self.original_lease)
