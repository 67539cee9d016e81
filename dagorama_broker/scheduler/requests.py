"""Defines the records that callers pass to the scheduler: nodes to make, and workers that connect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from dagorama_broker.model.delays import NodeDelay
from dagorama_broker.model.domain import Function, WireProtocol
from dagorama_broker.model.hooks import Hook
from dagorama_broker.model.signals import WaitRow


class Start(NamedTuple):
    """The options with which a user starts an instance."""

    name: str = ""  #: its ID, unique among instances of the definition; empty: it has none
    digest: bytes = b""  #: of what it is started with, if it has an ID
    priority: int = 0  #: before the order of creation; higher goes first
    labels: tuple[tuple[str, str], ...] = ()
    hook: Hook | None = None
    fair: str = ""  #: key with which it takes turns with instances of other keys; empty: the key of those without one


def name_key(definition: str, name: str) -> bytes:
    """Return 32 bytes that stand for the ID of an instance."""
    return sha256(f"{len(definition)} {definition}{name}".encode()).digest()


class AnnouncedKey(NamedTuple):
    """The cache key of a node, as its caller has computed and signed it."""

    key: bytes
    signature: bytes  #: begins with the ID of the signing key


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
    start: Start | None = None  #: the options of the instance, if this makes it and has any
    delays: Mapping[int, NodeDelay] | None = None  #: of nodes that have one, by their places
    waits: Mapping[int, WaitRow] | None = None  #: of nodes that wait for a signal, by their places
    cache_keys: Mapping[int, AnnouncedKey] | None = None  #: of nodes whose caller knows them, by their places

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
    is_proven: bool = True  #: it has proven that the ID is its own
    fuses_joins: bool = False  #: it runs a node right after several sources of it that are granted with it
    owner: str = ""  #: name of the token with which it connected; empty: none

    def takes(self, queue: str) -> bool:
        """Return whether the worker serves this queue."""
        return queue not in self.exclude_queues and (not self.include_queues or queue in self.include_queues)
