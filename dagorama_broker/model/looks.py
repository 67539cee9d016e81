"""The facts by which submissions are decided, one by one, or as one question for all of them and its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from dagorama_broker.model.rows import NameRow, NodeBlockRow, RemovedRow

#: Above every counter of a node.
_END = 1 << 32


class Known(Protocol):
    """The facts by which new nodes are decided. The broker asks this in its loop, so each answer must be quick."""

    def is_new(self, instance: bytes, origin: bytes) -> bool:
        """Return whether neither the ID was used for an instance, see `has_instance`, nor the origin for nodes.

        The only query that most submissions need.
        """
        ...

    def has_instance(self, id: bytes) -> bool:
        """Return whether this ID was ever used, as far as removed IDs are remembered."""
        ...

    def removed(self, id: bytes) -> RemovedRow | None:
        """Return the record of a removed instance, if it is one of the latest `REMEMBERED`."""
        ...

    def last_block(self, origin: bytes, before: int) -> NodeBlockRow | None:
        """Return the last block of this origin that begins before this counter."""
        ...

    def named_instance(self, definition: str, name: str) -> NameRow | None:
        """Return the row of a user's ID of an instance; None if no instance of the definition has it."""
        ...

    def has_large(self, sha256: bytes) -> bool:
        """Return whether a large value is stored."""
        ...


@dataclass(slots=True)
class Wanted:
    """The facts of a store that submissions depend on."""

    instances: set[bytes] = field(default_factory=set)  #: IDs
    blocks: set[tuple[bytes, int]] = field(default_factory=set)  #: origins, each with a counter
    names: set[tuple[str, str]] = field(default_factory=set)  #: definitions, each with a user's ID of an instance
    large: set[bytes] = field(default_factory=set)  #: SHA-256 of large values

    def __bool__(self) -> bool:
        return bool(self.instances or self.blocks or self.names or self.large)

    def add(self, other: Wanted) -> None:
        """Add all that the other one has."""
        self.instances |= other.instances
        self.blocks |= other.blocks
        self.names |= other.names
        self.large |= other.large


@dataclass(slots=True)
class Seen:
    """The answer of a store to all that was wanted; unknown names and IDs are left out."""

    instances: set[bytes] = field(default_factory=set)  #: IDs that were ever used, as far as they are remembered
    removed: dict[bytes, RemovedRow] = field(default_factory=dict)  #: by the ID of the instance
    origins: set[bytes] = field(default_factory=set)  #: used for nodes
    blocks: dict[tuple[bytes, int], NodeBlockRow] = field(default_factory=dict)  #: the last before each counter
    names: dict[tuple[str, str], NameRow] = field(default_factory=dict)
    large: set[bytes] = field(default_factory=set)  #: stored


def look_into(store: Known, wanted: Wanted) -> Seen:
    """Return the answer of a store that is near: it is asked for one fact after the other."""
    removed = {id: store.removed(id) for id in wanted.instances}
    blocks = {each: store.last_block(*each) for each in wanted.blocks}
    names = {each: store.named_instance(*each) for each in wanted.names}
    return Seen(
        instances={id for id in wanted.instances if store.has_instance(id)},
        removed={id: row for id, row in removed.items() if row is not None},
        origins={origin for origin, _ in wanted.blocks if store.last_block(origin, _END) is not None},
        blocks={each: row for each, row in blocks.items() if row is not None},
        names={each: row for each, row in names.items() if row is not None},
        large={sha256 for sha256 in wanted.large if store.has_large(sha256)},
    )
