"""The interface of a store. A store keeps records and knows no rules; one test suite runs against all stores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from dagorama_broker.errors import StoreError
from dagorama_broker.model.hooks import HookRow
from dagorama_broker.model.looks import Known, Seen, Wanted
from dagorama_broker.model.objects import NewObject, ObjectRow
from dagorama_broker.model.queries import (
    EdgesPage,
    EndedNode,
    Failed,
    FoundNode,
    Live,
    StoredInstance,
    Usage,
)
from dagorama_broker.model.rows import Changes, OutcomeRow
from dagorama_broker.store.objects.large_objects import LargeObjects
from dagorama_broker.store.view import Queries, StoreView

#: Number of removed instances whose IDs a store remembers, the latest.
REMEMBERED = 100_000
#: Length of a store's secret.
SECRET_BYTES = 32


class Unshared:
    """The lead of a store that only one broker can have open."""

    is_sure = True

    def stop_waiting(self) -> None:
        """Do nothing: no call waits."""

    def keep(self, lost: Callable[[StoreError], None]) -> None:
        """Do nothing: no other broker can take it."""


class Store(Known, Queries, Protocol):
    """The broker's records.

    Calls block. Unless a method says otherwise, the broker calls it from one thread at a time, and not from the thread
    of its event loop, with three exceptions if the store is `near`: the queries of `Known`, methods that are documented
    as quick, and short commits. Every method raises StoreError, with one sentence, if the store cannot be read or
    written.
    """

    @property
    def near(self) -> bool:
        """Whether a quick query takes microseconds, so that the broker may make it in its loop."""
        ...

    def open(self) -> None:
        """Reach the store, and find out whether it can be used at all. This changes no record."""

    def take(self) -> int:
        """Become the only broker of the open store: create or migrate it, commit a new epoch (1, 2, ...) and return it.

        A store that only one process can use raises StoreError at once if another broker has it. A store that several
        may use waits until no other broker leads, or `stop_waiting` is called. `close` gives it up.
        """
        ...

    def stop_waiting(self) -> None:
        """Let calls that wait in other threads, or will wait, end with a StoreError: for the lead, or for a server."""

    def keep(self, lost: Callable[[StoreError], None]) -> None:
        """Stay the only broker of the store until `close`.

        `lost` is called once, in any thread, with Deposed if another broker has taken the store over, or with another
        StoreError if that cannot be found out.
        """

    @property
    def is_sure(self) -> bool:
        """Whether no other broker can have taken the store by now. While it is False, nothing may be granted."""
        ...

    @property
    def logs_path(self) -> Path | None:
        """Return the file for logs of nodes next to the store; None: they are kept in memory, as the store is."""
        ...

    @property
    def secret(self) -> bytes:
        """Return 32 random bytes that were created with the store, once it is open. They must not leave the broker."""
        ...

    @property
    def last_used(self) -> float:
        """Return when an earlier broker last used the store (seconds since 1970, to about a minute); 0: never."""
        ...

    @property
    def view(self) -> StoreView:
        """Return the queries of people. Another thread may make them, unless the store itself answers them."""
        ...

    def live(self) -> Live:
        """Return all nodes that have not ended and what they depend on."""
        ...

    def commit(self, changes: Changes) -> None:
        """Write the changes durably in one transaction, all or none."""

    def values(self, keys: Sequence[int]) -> dict[int, bytes]:
        """Return value envelopes of completed or resolving nodes by key. Raise StoreError if a key is missing."""
        ...

    def find(self, ids: Sequence[bytes]) -> dict[bytes, FoundNode]:
        """Return nodes by 16-byte ID, without unknown ones."""
        ...

    def ended(self, keys: Sequence[int]) -> list[EndedNode]:
        """Return ended or resolving nodes by key, all nodes that their values refer to, and so on."""
        ...

    def outcome(self, key: int) -> OutcomeRow | None:
        """Return the recorded result of a node, failure included; None if there is none yet."""
        ...

    def look(self, wanted: Wanted) -> Seen:
        """Return what `Known` would answer about all that is wanted, with as few queries as possible.

        The broker may call it in a thread of its own while it commits in another one.
        """
        ...

    def hooks(self, instances: Collection[int]) -> dict[int, HookRow]:
        """Return the failure hooks of instances, by the keys of these; instances without one are left out."""
        ...

    def used_ids(self, after: bytes, most: int) -> list[bytes]:
        """Return up to `most` IDs of instances, removed ones too, and origins of nodes after this one, in their order.

        The broker may call it in a thread of its own while it commits in another one.
        """
        ...

    # No query finds an instance after the commit that has it in `Changes.removed`; `sweep` deletes its rows.

    def expired(self, failed: bool, before: float, most: int) -> list[StoredInstance]:
        """Return up to `most` instances that ended before that time (seconds since 1970), oldest end first.

        `failed`: those with a failed node, or those without. Instances that another instance refers to are left out.
        Quick if the store is near: one index lookup.
        """
        ...

    def named(self, after: int, most: int) -> list[StoredInstance]:
        """Return up to `most` ended instances after this key to which another one refers, in the order of their keys.

        Quick if the store is near: one index lookup.
        """
        ...

    def naming(self, key: int) -> list[StoredInstance]:
        """Return the instances that refer to this one. Quick if the store is near: one index lookup."""
        ...

    def functions_of(self, after: int, most: int) -> tuple[set[int], int | None]:
        """Return IDs of the functions of up to `most` nodes after this key, also of functions that they are rebound to.

        Also return the last key that was read; None if there are no more nodes.
        """
        ...

    def sweep(self, most: int) -> bool:
        """Delete up to `most` nodes of removed instances in one transaction; return whether more may be left."""
        ...

    def failed(self, root_causes: Sequence[int], more: Collection[int] = (), reruns: Collection[int] = ()) -> Failed:
        """Return the nodes that failed because of `root_causes`, the ended nodes `more`, and what a retry needs.

        Nodes in `reruns` drop their values, and the result lists what their attempts created.
        """
        ...

    def edges(self, instance: int, after: int, limit: int, tolerant: bool) -> EdgesPage:
        """Return what the `limit` nodes of an instance after this key depend on, without nodes that depend on nothing.

        `tolerant`: only nodes that take a failure of a source as a value.
        """
        ...

    @property
    def objects(self) -> LargeObjects | None:
        """The large values, if they are objects; None: they are files, for which the next four methods are."""
        ...

    def put_large(self, chunks: Iterable[bytes]) -> tuple[bytes, int]:
        """Store a large value durably; return its SHA-256 and length. Equal content is stored once. For any thread."""
        ...

    def get_large(self, sha256: bytes) -> Iterator[bytes] | None:
        """Return a large value in chunks of at most 1 MiB; None if it is not stored. Call it in any thread."""
        ...

    def share_large(self) -> tuple[str, str]:
        """Let clients on this machine use large values as files, and write new ones to the folder's `unfinished`.

        Return the path of the folder, and a word in a file there, by which clients recognize the folder.
        """
        ...

    def keep_large(self, sha256: bytes, length: int, unfinished: str = "") -> bool:
        """Return whether a large value is stored durably; if it is not, the client's file `unfinished` becomes it."""
        ...

    def object_of(self, sha256: bytes) -> ObjectRow | None:
        """Return which object holds a large value; None if no row says so. Call it in any thread."""
        ...

    def name_objects(self, new: Sequence[NewObject]) -> list[ObjectRow]:
        """Let objects be large values, durably, and return the rows of these values.

        A value that another object holds already keeps it, unless that is the one to replace.
        """
        ...

    def find_unnamed_large(self) -> None:
        """Look for unreferenced large values that an earlier broker left behind. Call it in any thread."""

    def collect_large(self, grace: float, most: int, is_wanted: Callable[[bytes], bool]) -> bool:
        """Remove up to `most` large values that were unreferenced for `grace` seconds; return whether more may be left.

        Values that are `is_wanted` get another grace period. No node must come to refer to one meanwhile: the broker
        calls this in its loop if the store is near, and otherwise wants all values of decisions that are under way.
        `delete_collected` does the slow part.
        """
        ...

    def delete_collected(self, grace: float) -> None:
        """Delete collected values, and files that clients left for `grace` seconds. Objects go some time later."""

    def usage(self) -> Usage | None:
        """Return the bytes of its files; None if it has none. It reads whole folders: call it in any thread."""
        ...

    def size(self) -> int:
        """Return the bytes of the database and its log; 0 if there are no files. Call it in any thread."""
        ...

    def close(self) -> None:
        """Release everything; open() may follow."""
