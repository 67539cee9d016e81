"""Queries that several modules share. Every row is compared with its checksum."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import Function, RetryPolicy, State, WireProtocol, unpack_keys
from dagorama_broker.model.queries import EndedNode, FoundNode, LiveNode, StoredInstance
from dagorama_broker.model.rows import FunctionRow, InstanceRow, NodeBlockRow, OutcomeRow, RemovedRow
from dagorama_broker.store.checksums import (
    check_payload,
    check_row,
    damaged,
    node_sum,
    outcome_sum,
    with_options,
)
from dagorama_broker.store.sql.connection import Connection

_Found = TypeVar("_Found")
#: Numbers of keys in one SELECT; few sizes, so that the database prepares few statements.
_ASKED = (1, 16, 256)
_BLOCK = "SELECT first_key, origin, first, size, instance, digest, creator, created, chk FROM node_blocks"
_INSTANCE = "key, id, instances.definition, entry, created, priority, instances.chk, ended, failed, end_chk"
_OUTCOME = (
    "SELECT o.chk, o.key, o.state, o.attempt, o.root_cause, o.ended, o.microseconds, o.worker, o.refs,"
    " r.chk, r.state, r.root_cause, r.ended"
    " FROM outcomes o LEFT JOIN resolved r ON r.key = o.key WHERE o.key IN"
)


class KeptFailure(NamedTuple):
    """The failure that is stored for a node."""

    has_value: bool  #: the node returned promises, and one of them failed
    failure: bytes | None


class Reader:
    """Reads through one connection, one call at a time."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def by_keys(self, select: str, keys: Collection[int]) -> Iterator[Any]:
        """Yield rows of a SELECT that ends in IN, in no particular order."""
        rest = iter(sorted(keys))
        while asked := list(islice(rest, _ASKED[-1])):
            size = next(size for size in _ASKED if size >= len(asked))
            asked += asked[-1:] * (size - len(asked))
            yield from self.connection.execute(f"{select} ({','.join('?' * size)})", asked)

    # --- payloads ---------------------------------------------------------------------------------

    def arguments(self, keys: Collection[int]) -> dict[int, bytes]:
        found = {}
        for key, chk, arguments in self.by_keys("SELECT key, chk, arguments FROM nodes WHERE key IN", keys):
            check_payload("nodes", key, chk, arguments)
            found[key] = arguments
        return _all_found("arguments", keys, found)

    def values(self, keys: Collection[int]) -> dict[int, bytes]:
        found = {}
        select = "SELECT key, chk, value, failure FROM outcomes WHERE key IN"
        for key, chk, value, failure in self.by_keys(select, keys):
            check_payload("outcomes", key, chk, value, failure)
            if value is not None:
                found[key] = value
        return _all_found("value", keys, found)

    def outcome(self, key: int) -> OutcomeRow | None:
        row = next(self.outcome_heads([key]), None)
        if row is None:
            return None
        payload = "SELECT chk, value, failure FROM outcomes WHERE key = ?"
        chk, value, failure = self.connection.execute(payload, (key,)).fetchone()
        check_payload("outcomes", key, chk, value, failure)
        return row._replace(value=value, failure=failure)

    def outcome_heads(self, keys: Collection[int]) -> Iterator[OutcomeRow]:
        """Yield the current outcomes of nodes that have one, without value and failure."""
        for chk, *head, resolved_chk, resolved_state, resolved_root_cause, resolved_ended in self.by_keys(
            _OUTCOME, keys
        ):
            if outcome_sum(*head) != chk >> 32:
                raise damaged("outcomes", head[0])
            key, state, attempt, root_cause, ended, microseconds, worker, refs = head
            returned = 0.0
            if resolved_chk is not None:
                returned, state, root_cause, ended = ended, resolved_state, resolved_root_cause, resolved_ended
                check_row("resolved", key, resolved_chk, (key, state, root_cause, ended))
            yield OutcomeRow(key, state, attempt, refs, None, root_cause, None, ended, microseconds, worker, returned)

    def failures(self, keys: Collection[int]) -> dict[int, KeptFailure]:
        """Return the stored failures of these nodes. Raise StoreError if one has no outcome."""
        found = {}
        select = "SELECT key, chk, value, failure FROM outcomes WHERE key IN"
        for key, chk, value, failure in self.by_keys(select, keys):
            check_payload("outcomes", key, chk, value, failure)
            found[key] = KeptFailure(value is not None, failure)
        return _all_found("outcome", keys, found)

    # --- nodes ------------------------------------------------------------------------------------

    def nodes(self, keys: Collection[int]) -> dict[int, LiveNode]:
        """Return nodes by key, without their arguments. Raise StoreError if one is missing."""
        found = {}
        select = "SELECT key, chk, instance, function, sources FROM nodes WHERE key IN"
        for key, chk, instance, function, sources in self.by_keys(select, keys):
            if node_sum(key, instance, function, sources) != chk >> 32:
                raise damaged("nodes", key)
            found[key] = LiveNode(key, instance, function, sources)
        return _all_found("row", keys, found)

    def ended(self, keys: Collection[int]) -> dict[int, EndedNode]:
        """Return the nodes that have an outcome, by key."""
        outcomes = {row.key: row for row in self.outcome_heads(keys)}
        nodes = self.nodes(outcomes.keys())
        return {
            key: EndedNode(
                key, nodes[key].instance, nodes[key].function, row.state, row.refs, row.root_cause, row.attempt
            )
            for key, row in outcomes.items()
        }

    def ended_and_named(self, keys: Collection[int]) -> dict[int, EndedNode]:
        """Return the nodes that have an outcome, the nodes that their values refer to, and so on."""
        found: dict[int, EndedNode] = {}
        wanted = set(keys)
        while wanted:
            fresh = self.ended(wanted)
            found.update(fresh)
            wanted = {key for node in fresh.values() for key in unpack_keys(node.refs)} - found.keys()
        return found

    def find(self, ids: Sequence[bytes]) -> dict[bytes, FoundNode]:
        keys = self.keys(ids)
        nodes, ended = self.nodes(keys.values()), self.ended(keys.values())
        self._check_unfinished({node.instance for key, node in nodes.items() if key not in ended})
        return {
            id: FoundNode(
                id, key, nodes[key].instance, nodes[key].function, has_ended(ended.get(key)), nodes[key].sources
            )
            for id, key in keys.items()
        }

    def _check_unfinished(self, instances: Collection[int]) -> None:
        """Raise StoreError if one of the instances has ended: its node without an outcome would never end."""
        select = "SELECT key FROM instances WHERE ended IS NOT NULL AND key IN"
        for (key,) in self.by_keys(select, instances):
            raise StoreError(f"table outcomes is damaged: instance {key} has ended and one of its nodes has no outcome")

    def keys(self, ids: Sequence[bytes]) -> dict[bytes, int]:
        """Return the keys of the nodes that exist; nodes of removed instances do not."""
        blocks = {id: block for id in ids if (block := self._block_with(id))}
        select = "SELECT instance FROM leftovers WHERE instance IN"
        gone = {instance for (instance,) in self.by_keys(select, {block.instance for block in blocks.values()})}
        return {
            id: block.first_key + int.from_bytes(id[12:], "big") - block.first
            for id, block in blocks.items()
            if block.instance not in gone
        }

    def _block_with(self, id: bytes) -> NodeBlockRow | None:
        counter = int.from_bytes(id[12:], "big")
        block = self._block("WHERE origin = ? AND first <= ? ORDER BY first DESC LIMIT 1", id[:12], counter)
        return block if block and counter < block.first + block.size else None

    def ids(self, keys: Collection[int]) -> dict[int, bytes]:
        found = {
            key: block.origin + (block.first + key - block.first_key).to_bytes(4, "big")
            for key, block in self.blocks_of(keys).items()
        }
        return _all_found("ID", keys, found)

    def blocks_of(self, keys: Collection[int]) -> dict[int, NodeBlockRow]:
        """Return the blocks that contain these nodes, by node key; nodes without a block are left out."""
        found: dict[int, NodeBlockRow] = {}
        block: NodeBlockRow | None = None
        for key in sorted(keys):
            if block is None or key >= block.first_key + block.size:
                block = self.block_of(key)
            if block is not None:
                found[key] = block
        return found

    # --- runs, instances, functions -----------------------------------------------------------------

    def block_of(self, key: int) -> NodeBlockRow | None:
        """Return the block that contains a node, by the key of the node."""
        block = self._block("WHERE first_key <= ? ORDER BY first_key DESC LIMIT 1", key)
        return block if block is not None and key < block.first_key + block.size else None

    def last_block(self, origin: bytes, before: int) -> NodeBlockRow | None:
        return self._block("WHERE origin = ? AND first < ? ORDER BY first DESC LIMIT 1", origin, before)

    def _block(self, where: str, *parameters: int | bytes) -> NodeBlockRow | None:
        return next(self.blocks(where, *parameters), None)

    def blocks(self, where: str, *parameters: int | bytes) -> Iterator[NodeBlockRow]:
        for *row, chk in self.connection.execute(f"{_BLOCK} {where}", parameters):
            first_key, origin, first, size, instance, digest, creator, created = row
            check_row("node_blocks", first_key, chk, row)
            yield NodeBlockRow(origin, first, size, first_key, instance, digest, creator, created)

    def has_instance(self, id: bytes) -> bool:
        select = "SELECT 1 FROM instances WHERE id = ? UNION ALL SELECT 1 FROM removed WHERE id = ?"
        return self.connection.execute(select, (id, id)).fetchone() is not None

    def is_new(self, instance: bytes, origin: bytes) -> bool:
        select = (
            "SELECT 1 FROM instances WHERE id = ? UNION ALL SELECT 1 FROM removed WHERE id = ?"
            " UNION ALL SELECT 1 FROM node_blocks WHERE origin = ? LIMIT 1"
        )
        return self.connection.execute(select, (instance, instance, origin)).fetchone() is None

    def instance(self, id: bytes) -> StoredInstance | None:
        return next(self.instances("WHERE id = ?", id), None)

    def instances_of(self, keys: Collection[int]) -> Iterator[StoredInstance]:
        for key in sorted(keys):
            yield from self.instances("WHERE key = ?", key)

    def instances(
        self, where: str, *parameters: float | str | bytes, tables: str = "instances"
    ) -> Iterator[StoredInstance]:
        """Yield instances; `tables` may join others, which are read in the order in which they are named."""
        for *row, chk, ended, failed, end_chk in self.connection.execute(
            f"SELECT {_INSTANCE} FROM {tables} {where}", parameters
        ):
            check_row("instances", row[0], chk, row)
            check_row("instances", row[0], end_chk, (row[0], ended, failed))
            yield StoredInstance(InstanceRow(*row), ended, bool(failed))

    def expired(self, failed: bool, before: float, most: int) -> Iterator[StoredInstance]:
        """Yield instances that ended before, oldest end first, without instances that another one refers to."""
        return self.instances(
            "INDEXED BY ended_instances WHERE failed = ? AND ended <= ? AND named = 0"
            " AND NOT EXISTS (SELECT 1 FROM links l WHERE l.named = instances.key) ORDER BY ended LIMIT ?",
            int(failed),
            before,
            most,
        )

    def named(self, after: int, most: int) -> Iterator[StoredInstance]:
        """Yield instances that have ended and that another instance refers to, in the order of their keys."""
        where = "INDEXED BY named_instances WHERE key > ? AND ended IS NOT NULL AND named = 1 ORDER BY key LIMIT ?"
        return self.instances(where, after, most)

    def naming(self, key: int) -> Iterator[StoredInstance]:
        return self.instances("WHERE key IN (SELECT instance FROM links WHERE links.named = ?)", key)

    def removed(self, id: bytes) -> RemovedRow | None:
        """Return the record of a removed instance."""
        select = "SELECT instance, id, ended, failed, kept, chk FROM removed WHERE id = ?"
        for *row, chk in self.connection.execute(select, (id,)):
            check_row("removed", id, chk, row)
            key, _, ended, failed, kept = row
            return RemovedRow(key, id, ended, bool(failed), kept)
        return None

    def names_large(self, sha256: bytes) -> bool:
        """Return whether a node refers to this large value."""
        select = "SELECT 1 FROM large_refs WHERE sha256 = ?"
        return self.connection.execute(select, (sha256,)).fetchone() is not None

    def worker_names(self, numbers: Collection[int]) -> dict[int, str]:
        """Return the names of workers by their numbers, without forgotten ones."""
        found = {}
        for number, name, chk in self.by_keys("SELECT number, name, chk FROM worker_names WHERE number IN", numbers):
            check_row("worker_names", number, chk, (number, name))
            found[number] = name
        return found

    def functions(self) -> Iterator[FunctionRow]:
        for *row, chk in self.connection.execute(
            "SELECT id, name, hash, queue, taint, max_attempts, retry_interval, retry_base, retry_max_interval,"
            " retry_jitter, is_async, protocol, options, chk FROM functions ORDER BY id"
        ):
            check_row("functions", row[0], chk, row)
            id, name, hash, queue, taint, *retry, is_async, protocol, options = row
            policy = None if retry[0] is None else RetryPolicy(*retry)
            function = Function(name, hash, queue, taint, policy, bool(is_async), WireProtocol(protocol))
            yield FunctionRow(id, with_options(function, options))


def has_ended(node: EndedNode | None) -> EndedNode | None:
    """Return the node, or None if it is still RESOLVING."""
    return None if node is None or node.state == State.RESOLVING else node


def _all_found(what: str, keys: Collection[int], found: dict[int, _Found]) -> dict[int, _Found]:
    """Return what was found. Raise StoreError if a key is missing."""
    missing = next((key for key in keys if key not in found), None)
    if missing is not None:
        raise StoreError(f"the store has no {what} of node {missing}")
    return found
