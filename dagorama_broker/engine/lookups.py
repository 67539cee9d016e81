"""Looks up instances, nodes and large values: in memory, and in the store once it has all that memory had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from dagorama_broker.engine.commits import Commits
from dagorama_broker.engine.payloads import Payloads
from dagorama_broker.engine.retention_policy import RetentionPolicy, not_known
from dagorama_broker.errors import Conflict, InvalidArgument, NotFound
from dagorama_broker.model.domain import ENDED
from dagorama_broker.model.looks import Known
from dagorama_broker.model.queries import FoundNode, InstanceQuery, StoredInstance
from dagorama_broker.model.rows import OutcomeRow
from dagorama_broker.scheduler import NewNodes, Node, name_key

_LAST = (1 << 63) - 1


class InstanceLocks:
    """Protects instances that a call is reading from removal."""

    def __init__(self) -> None:
        self._held: Counter[bytes] = Counter()

    def __contains__(self, id: object) -> bool:
        return id in self._held

    @contextmanager
    def on(self, id: bytes) -> Iterator[None]:
        """Protect an instance within the context. Enter it before the instance is looked up."""
        self.take(id)
        try:
            yield
        finally:
            self.let_go(id)

    def take(self, id: bytes) -> None:
        """Protect an instance until `let_go`."""
        self._held[id] += 1

    def let_go(self, id: bytes) -> None:
        """End what `take` began."""
        self._held[id] -= 1
        if not self._held[id]:
            del self._held[id]


class Lookups:
    def __init__(self, commits: Commits, payloads: Payloads, keeping: RetentionPolicy) -> None:
        self.keeping = keeping
        self.holds = InstanceLocks()
        self._commits = commits
        self._scheduler = commits.scheduler
        self._store = commits.store
        self._payloads = payloads

    # --- instances ------------------------------------------------------------------------------------

    def has_instance(self, id: bytes, known: Known) -> bool:
        """Return whether this ID was ever used for an instance."""
        return id in self._scheduler.instances or self._commits.is_unwritten(id) or known.has_instance(id)

    async def not_known(self, instance: bytes) -> NotFound:
        """Return the error for an instance that the store does not have, or has removed."""
        return not_known(instance, await self._commits.quickly(self._store.removed, instance), self.keeping)

    def check_names(self, blocks: Iterable[NewNodes], known: Known) -> None:
        """Raise Conflict if one of these new instances would get a user's ID that another one of its definition has.

        Until the next await, the blocks may be made.
        """
        seen = set[bytes]()
        for block in blocks:
            if block.creates is None or block.start is None or not block.start.name:
                continue
            definition, name = block.creates[0], block.start.name
            key = name_key(definition, name)
            if key in seen or self._commits.is_unwritten(key) or known.named_instance(definition, name):
                raise Conflict(f"an instance of {definition} with the ID {name!r} exists already")
            seen.add(key)

    async def instance_named(self, definition: str, name: str) -> bytes:
        """Return the 16-byte ID of the instance of a definition that has this user's ID. Raises NotFound."""
        await self._commits.wait_durable()
        asked = InstanceQuery(_LAST, 1, definition=definition, name=name)
        found = await self._commits.in_view(self._store.view.list_instances, asked)
        if not found.instances:
            raise NotFound(f"no instance of {definition} has the ID {name!r}")
        return found.instances[0].row.id

    async def stored_instance(self, id: bytes) -> StoredInstance:
        """Return an instance as the store has it, including all changes until now. Raises NotFound."""
        return (await self.stored_instances([id]))[id]

    async def stored_instances(self, ids: Collection[bytes]) -> dict[bytes, StoredInstance]:
        """Return instances as the store has them, by ID, including all changes until now. Raises NotFound."""
        await self._commits.wait_durable()
        read = self._store.instance
        found = await self._commits.in_store(lambda: {id: stored for id in ids if (stored := read(id)) is not None})
        for id in ids:
            if id not in found:
                raise await self.not_known(id)
        return found

    # --- nodes ----------------------------------------------------------------------------------------

    async def find_node(self, instance: bytes, id: bytes) -> FoundNode:
        """Return a node of an instance as the store has it. Raises NotFound or InvalidArgument."""
        return (await self.find_nodes(instance, [id]))[id]

    async def find_nodes(self, instance: bytes, ids: Sequence[bytes]) -> dict[bytes, FoundNode]:
        """Return nodes of an instance as the store has them, by ID.

        Raises NotFound if the instance or a node is unknown, and InvalidArgument if a node is of another instance.
        """
        key = (await self.stored_instance(instance)).row.key
        found = await self._commits.in_store(self._store.find, list(ids))
        for id in ids:
            if id not in found:
                raise unknown_node(id)
            check_instance(id, instance, is_own=found[id].instance == key)
        return found

    async def find_ended(self, ids: Sequence[bytes]) -> dict[bytes, Node]:
        """Return nodes that have ended, by ID, from the store; unknown and unfinished ones are left out."""
        if not ids:
            return {}
        found = await self._commits.in_store(self._store.find, ids)
        rows = {row.key: id for id, row in found.items() if row.ended is not None}
        nodes = self._scheduler.ended_nodes(await self._commits.in_store(self._store.ended, list(rows)))
        # A node that was removed between the two reads is unknown, as it would be to a third.
        return {id: nodes[key] for key, id in rows.items() if key in nodes and nodes[key].state in ENDED}

    async def outcome(self, key: int) -> OutcomeRow | None:
        """Return the recorded result of a node."""
        return await self._commits.in_store(self._store.outcome, key)

    async def values_of(self, nodes: Sequence[Node]) -> dict[bytes, bytes]:
        """Return the envelopes of completed nodes, by node ID."""
        values = await self._payloads.values.get(node.key for node in nodes)
        ids = await self.ids_of(nodes)
        return {ids[key]: value for key, value in values.items()}

    async def ids_of(self, nodes: Sequence[Node]) -> dict[int, bytes]:
        """Return the 16-byte IDs of nodes, by key."""
        ids = {node.key: node.block.id_of(node.key) for node in nodes if node.block is not None}
        if len(ids) < len(nodes):
            rest = [node.key for node in nodes if node.block is None]
            ids |= await self._commits.in_store(self._store.ids, rest)
        return ids

    # --- large values ---------------------------------------------------------------------------------

    def check_large(self, names: Iterable[bytes], known: Known) -> None:
        """Raise NotFound if one of these large values, named by their SHA-256, does not exist."""
        for sha256 in names:
            if not known.has_large(sha256):
                raise NotFound(
                    f"large value {sha256.hex()} is not here: it was not sent with PutValue before, or no node has"
                    f" named it for {self.keeping.grace:g} s; call put() again"
                )


def unknown_node(id: bytes) -> NotFound:
    """Return the error for a node that does not exist."""
    return NotFound(f"node {id.hex()} is not known to this broker")


def check_instance(id: bytes, instance: bytes, *, is_own: bool) -> None:
    """Raise InvalidArgument unless this node is of this instance."""
    if not is_own:
        raise InvalidArgument(f"node {id.hex()} belongs to another instance than {instance.hex()}")
