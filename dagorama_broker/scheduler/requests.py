"""Defines the records that callers pass to the scheduler: nodes to make, and workers that connect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dagorama_broker.model.domain import Function, WireProtocol


@dataclass(slots=True)
class NewNodes:
    """Nodes to be made, as a message described them; see `Nodes` in broker.proto for references."""

    instance: bytes
    origin: bytes
    first: int
    functions: Sequence[Function]
    function: Sequence[int]  #: for each node, the index of its function in `functions`
    arguments: list[bytes]
    sources: list[Sequence[int]] | None = None  #: references of each node
    foreign: Sequence[bytes] = ()
    creates: tuple[str, bytes] | None = None  #: definition and entry of the instance, if this makes it
    digest: bytes = b""
    large: Sequence[bytes] = ()
    tolerant: Sequence[Sequence[int]] | None = None  #: for each node, indexes in its references
    keys: Sequence[str] = ()  #: concurrency keys
    key: Sequence[int] = ()  #: for each node, 1 + the index of its concurrency key in `keys`; 0: it has none
    weight: int = 0  #: nodes and references, roughly what making them costs
    trace: str = ""  #: trace context of what creates them; empty: they are not traced

    @property
    def count(self) -> int:
        """The number of nodes."""
        return len(self.function)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker's description of itself when it connects."""

    id: bytes
    name: str
    slots: int = 1
    protocol: WireProtocol = WireProtocol.V1
    include_queues: frozenset[str] = frozenset()  #: empty: all
    exclude_queues: frozenset[str] = frozenset()
    tolerations: frozenset[str] = frozenset()
    leave_when_drained: bool = False
    leave_when_idle: bool = False
    key_ids: frozenset[str] = frozenset()  #: signing keys that it holds, in hexadecimal
    is_proven: bool = True  #: it has proven that the id is its own

    def takes(self, queue: str) -> bool:
        """Return whether the worker serves this queue."""
        return queue not in self.exclude_queues and (not self.include_queues or queue in self.include_queues)
