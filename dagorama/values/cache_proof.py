"""The proof that a node has the value of a cache key: made where it ran, and checked where it is taken over.

    version, cache key, instance, node     1, 32, 16 and 16 bytes, signed as a statement with the role M

So a broker, which holds no key, cannot make a node take the value of another function, of other code or of other
arguments. It can say that a value is not there, or offer one that has expired: neither is a wrong value.
"""

from __future__ import annotations

from dagorama.errors import TamperedValue
from dagorama.values.keys import ID_BYTES
from dagorama.values.signing import CACHED, INSTANCE_BYTES, NODE_BYTES, Keyring

_VERSION = b"\1"


def cache_proof(ring: Keyring, key: bytes, instance: bytes, node: bytes) -> bytes:
    """Return the proof that this node has the value of this cache key."""
    return ring.signs_under + ring.sign_statement(_VERSION + key + instance + node, CACHED)


def check_cache_proof(ring: Keyring, proof: bytes, key: bytes, instance: bytes, node: bytes) -> None:
    """Raise TamperedValue unless the proof is for these; UnverifiedValue if its key is not held here."""
    what = f"the cached value of node {node.hex()}"
    if len(instance) != INSTANCE_BYTES or len(node) != NODE_BYTES:
        raise TamperedValue(f"{what} of instance {instance.hex()} cannot be: these are no ids")
    ring.check_statement(_VERSION + key + instance + node, CACHED, proof[:ID_BYTES], proof[ID_BYTES:], what)
