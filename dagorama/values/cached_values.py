"""The two signatures of a cached value, and the value of a node that the broker has found in the cache.

A broker holds no signing key, and is believed only with both signatures:

    proof           the process that ran a node has signed that the node has the value of a cache key
    announcement    the caller of a node has signed that this is the cache key of the node

Each is the ID of a signing key and an HMAC of 1 (the version), the cache key, the instance and the node, under a role
of its own. So a broker cannot give a node the value of another function, of other code or of other arguments. It can
offer a value that has expired, which is not a wrong value.

A worker that is told of a value computes the cache key itself, and needs only the proof. A node whose caller has
announced the key completes without a worker: its value is what both have signed, see `envelope.found_parts`, and stands
for a promise of the node that has the value.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

from dagorama.api.contract import INSTANCE_BYTES, KEY_ID_BYTES, NODE_ID_BYTES, ORIGIN_BYTES
from dagorama.errors import TamperedValue
from dagorama.models.promise import DAGPromise
from dagorama.values.envelope import FoundParts, found_parts, seal
from dagorama.values.pickling import pickled

#: The roles of the signatures.
PROOF, ANNOUNCEMENT = b"M", b"K"

_VERSION = b"\1"


class Statements(Protocol):
    """Keys that sign and verify statements: a `Keyring`."""

    @property
    def signs_under(self) -> bytes: ...

    def sign_statement(self, statement: bytes, role: bytes) -> bytes: ...

    def check_statement(self, statement: bytes, role: bytes, key_id: bytes, mac: bytes, what: str) -> None: ...


def sign_cache_key(ring: Statements, role: bytes, key: bytes, instance: bytes, node: bytes) -> bytes:
    """Return the signature that binds a cache key to a node."""
    return ring.signs_under + ring.sign_statement(_VERSION + key + instance + node, role)


def check_cache_key(ring: Statements, role: bytes, signature: bytes, key: bytes, instance: bytes, node: bytes) -> None:
    """Raise TamperedValue unless the signature binds this key to this node; UnverifiedValue if its key is not held."""
    what = f"the {'proof' if role == PROOF else 'announcement'} of the cached value of node {node.hex()}"
    if len(instance) != INSTANCE_BYTES or len(node) != NODE_ID_BYTES:
        raise TamperedValue(f"{what} of instance {instance.hex()} cannot be right: these are not IDs")
    statement = _VERSION + key + instance + node
    ring.check_statement(statement, role, signature[:KEY_ID_BYTES], signature[KEY_ID_BYTES:], what)


def promise_of(instance: bytes, node: bytes, function: str) -> DAGPromise[object]:
    """Return a promise of the node that has a cached value."""
    origin, counter = node[:ORIGIN_BYTES], int.from_bytes(node[ORIGIN_BYTES:], "big")
    return DAGPromise._made(origin, counter, instance, function, (), {}, None)


def open_found(ring: Statements, envelope: bytes, node: bytes) -> FoundParts:
    """Return the value of a node that the broker has found in the cache, after both signatures were checked.

    Raises TamperedValue unless the caller of the node has signed the cache key and a process has signed that the other
    node has the value of that; UnverifiedValue if a key is not held here, and ValueNotReadable.
    """
    found = found_parts(envelope)
    check_cache_key(ring, ANNOUNCEMENT, found.announcement, found.key, found.instance, node)
    check_cache_key(ring, PROOF, found.proof, found.key, found.other_instance, found.other)
    return found


def as_promise(found: FoundParts) -> bytes:
    """Return the envelope of a promise of the node that has the value."""
    return seal(_only_promise(), [promise_of(found.other_instance, found.other, "")])


@cache
def _only_promise() -> bytes:
    """Return the pickle of a value that is nothing but a promise. It does not name the node."""
    return pickled(promise_of(bytes(INSTANCE_BYTES), bytes(NODE_ID_BYTES), ""))[0]
