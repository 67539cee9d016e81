"""What a store must do. It keeps records and knows no rules; one conformance suite runs against every store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

from dagorama_broker.model.domain import Fate
from dagorama_broker.model.queries import (
    AskedInstances,
    BadEnd,
    EdgesPage,
    EndedNode,
    Failed,
    FoundNode,
    ListedInstances,
    Live,
    StoredInstance,
    StoredNode,
)
from dagorama_broker.model.rows import Changes, OutcomeRow, RemovedRow, RunRow


class Store(Protocol):
    """Where the broker's truth is.

    Calls block: the broker makes them from one thread at a time, but for those that say otherwise, and not from its
    loop's, but for short commits.
    Every method raises StoreError with one sentence when the store cannot be read or written.
    """

    def open(self) -> int:
        """Make or migrate the store, take it for this process alone, commit a new epoch (from 1 up) and return it."""
        ...

    @property
    def secret(self) -> bytes:
        """32 random bytes that were made with the store and stay the same; known once it is open. Must not be shown."""
        ...

    @property
    def last_used(self) -> float:
        """When a broker last noted the time here before this one, about a minute exact; 0: never."""
        ...

    def live(self) -> Live:
        """All that has not ended and what it depends on."""
        ...

    def commit(self, changes: Changes) -> None:
        """Make the changes durable in one transaction, all or none."""

    def arguments(self, keys: Sequence[int]) -> dict[int, bytes]:
        """Argument envelopes by node key; a missing key is a StoreError."""
        ...

    def values(self, keys: Sequence[int]) -> dict[int, bytes]:
        """Value envelopes of completed (or resolving) nodes by key; a missing key is a StoreError."""
        ...

    def find(self, ids: Sequence[bytes]) -> dict[bytes, FoundNode]:
        """Nodes by 16-byte id; those that are not there are left out."""
        ...

    def ended(self, keys: Sequence[int]) -> list[EndedNode]:
        """Ended (or RESOLVING) nodes by key, with all that their values name, and so on (closed under `refs`)."""
        ...

    def ids(self, keys: Sequence[int]) -> dict[int, bytes]:
        """16-byte ids by node key."""
        ...

    def outcome(self, key: int) -> OutcomeRow | None:
        """The recorded result of a node, failure included; None: none yet."""
        ...

    def fates_of(self, keys: Sequence[int]) -> dict[int, Fate]:
        """What has become of the eager attempts that made these nodes; nodes that no such attempt made are left out."""
        ...

    def last_run(self, origin: bytes, before: int) -> RunRow | None:
        """Of the runs of this origin that begin before this counter, the last.

        One index lookup: quick enough for the broker's loop.
        """
        ...

    def instance(self, id: bytes) -> StoredInstance | None:
        """An instance by its 16-byte id."""
        ...

    def instances_between(self, low: bytes, high: bytes, most: int) -> list[bytes]:
        """Up to `most` ids of instances from `low` to `high`, both included, in their order."""
        ...

    def nodes_between(self, instance: int, low: bytes, high: bytes, most: int) -> list[bytes]:
        """The same for ids of nodes of an instance, which is given by its key."""
        ...

    def has_instance(self, id: bytes) -> bool:
        """Whether this id was ever used, as far as removed ones are remembered. Quick enough for the broker's loop."""
        ...

    def is_new(self, instance: bytes, origin: bytes) -> bool:
        """Whether neither that id was ever used for an instance, as `has_instance` knows it, nor that origin for nodes.

        One statement: quick enough for the broker's loop, which most submissions need no other look of.
        """
        ...

    # An instance that `Changes.removed` names is gone with that commit, for whoever asks; its rows go by `sweep`.

    def expired(self, failed: bool, before: float, most: int) -> list[StoredInstance]:
        """Up to `most` instances that ended before (seconds since 1970), well or as `failed`, oldest end first.

        Those that a link of another instance names are left out. An index: quick enough for the broker's loop.
        """
        ...

    def named(self, after: int, most: int) -> list[StoredInstance]:
        """Up to `most` instances that have ended and that another names, in the order of their keys after this one.

        An index: quick enough for the broker's loop.
        """
        ...

    def naming(self, key: int) -> list[StoredInstance]:
        """The instances that name this one. An index: quick enough for the broker's loop."""
        ...

    def removed(self, id: bytes) -> RemovedRow | None:
        """What is remembered of a removed instance, of the latest 100,000. Quick enough for the broker's loop."""
        ...

    def functions_of(self, after: int, most: int) -> tuple[set[int], int | None]:
        """Ids of the functions that up to `most` nodes after this key name, and those that have adopted them.

        With it comes the last key that was looked at; None: there are no more nodes.
        """
        ...

    def sweep(self, most: int) -> bool:
        """Delete up to `most` nodes of removed instances in one transaction; whether more may be left."""
        ...

    def list_instances(self, asked: AskedInstances) -> ListedInstances:
        """A page of instances. It may hold fewer than asked for although there are more: a page looks at so many."""
        ...

    def size_of(self, instance: int) -> int:
        """How many nodes an instance has, by its key."""
        ...

    def node_keys(self, instance: int, after: int, limit: int) -> list[int]:
        """Keys of nodes of an instance after this one, in their order."""
        ...

    def described(self, keys: Sequence[int]) -> dict[int, StoredNode]:
        """Nodes by key; a missing key is a StoreError."""
        ...

    def bad_ends(self, instance: int, after: int = 0, limit: int | None = None) -> list[BadEnd]:
        """Nodes of an instance, by its key, that failed or were cancelled; in the order of their keys."""
        ...

    def failed(self, culprits: Sequence[int], more: Collection[int] = (), reruns: Collection[int] = ()) -> Failed:
        """All nodes that failed because of these, by key, and `more` ended nodes, and what it takes to have them go on.

        Those of `reruns` drop their values; what their attempts made is listed too.
        """
        ...

    def edges(self, instance: int, after: int, limit: int, tolerant: bool) -> EdgesPage:
        """What nodes of an instance depend on, as far as the `limit` nodes after this key depend on anything.

        `tolerant`: only nodes that take a failure of a source as a value.
        """
        ...

    def used_failures(self, instance: int) -> list[int]:
        """Nodes of an instance, by its key, that were given a failure as a value which has been retried since."""
        ...

    def put_large(self, chunks: Iterable[bytes]) -> tuple[bytes, int]:
        """Keep a large value durably; its SHA-256 and length. Equal content is kept once."""
        ...

    def get_large(self, sha256: bytes) -> Iterator[bytes] | None:
        """A large value in chunks of at most 1 MiB; None: not there."""
        ...

    def has_large(self, sha256: bytes) -> bool:
        """Whether a large value is there. Quick enough for the broker's loop."""
        ...

    def share_large(self) -> tuple[str, str]:
        """Let clients on this machine have large values as files: the path of the folder, and a word that stands in it.

        What they write goes to its `unfinished`."""
        ...

    def keep_large(self, sha256: bytes, length: int, unfinished: str = "") -> bool:
        """Whether a large value is kept, durably, from what a client has written there if need be."""
        ...

    def find_unnamed_large(self) -> None:
        """Look for large values that an earlier broker left behind without a node that names them. In any thread."""

    def collect_large(self, grace: float, most: int, is_wanted: Callable[[bytes], bool]) -> bool:
        """Take away up to `most` large values that no node has named for `grace` seconds; whether there may be more.

        Those that are `is_wanted` stay for another grace. To be called in the broker's loop, so that nothing comes
        to name one meanwhile; `delete_collected` does the slow part.
        """
        ...

    def delete_collected(self, grace: float) -> None:
        """Delete the files of what was collected."""

    def close(self) -> None:
        """Let go of everything; open() may follow."""
