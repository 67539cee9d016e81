"""Decides for a node of a function with a cache whether it runs, or takes over a value that the broker has found.

The broker is believed only with a proof: the process that ran a node signs the cache key, the instance and the id of
the node. So a broker, which holds no key, cannot give a node the value of another function, of other code or of other
arguments. It can withhold a value, or offer one that has expired: neither is a wrong value.

    version, cache key, instance, node     1, 32, 16 and 16 bytes, signed as a statement with the role M
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import ORIGIN_BYTES
from dagorama.errors import TamperedValue, UnverifiedValue
from dagorama.graph.cache import CachedRun
from dagorama.graph.cache_keys import CacheKeys
from dagorama.models.promise import DAGPromise
from dagorama.values.keys import ID_BYTES
from dagorama.values.signing import CACHED, INSTANCE_BYTES, NODE_BYTES, Keyring
from dagorama.worker.child.call import Call

_VERSION = b"\1"


class LookUp(Exception):
    """A node cannot run before the broker has looked its cache key up: it is given back. No error."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.key = key


class Chosen(NamedTuple):
    """The function that runs for a node, and what its result is for the cache."""

    run: CachedRun
    function: Callable[..., Any] | None  #: returns the promise of the node that has the value; None: the node's own


def choose(
    ring: Keyring,
    call: Call,
    keys: CacheKeys,
    args: tuple[object, ...],
    kwargs: dict[str, Any],
    constructor: bytes | None,
    fresh: bool,
) -> Chosen:
    """Return the function that runs for a node of a function with a cache; `fresh`: its own one in any case.

    Raises LookUp if the broker must look the key up first, UncacheableArgument, and TamperedValue if the broker names a
    node for this key without a proof.
    """
    key, found = keys.key(call.instance, args, kwargs, constructor), call.found
    is_known = call.to_run or found is not None
    # A caller announces another key if the arguments that it passes differ from the arguments here.
    if not fresh and (not is_known or (call.announced and call.announced != key)):
        raise LookUp(key)
    if found is not None and not fresh:
        try:
            check_cache_proof(ring, found.proof, key, found.instance, found.node)
            return Chosen(CachedRun(key, b"", True), _returning(_promise(found, call.work.name), call.work.is_async))
        except UnverifiedValue:
            pass  # it was signed with a key that is no longer held here: the node runs
    return Chosen(CachedRun(key, cache_proof(ring, key, call.instance, call.id), False), None)


def _promise(found: pb.CachedNode, function: str) -> DAGPromise[Any]:
    origin, counter = found.node[:ORIGIN_BYTES], int.from_bytes(found.node[ORIGIN_BYTES:], "big")
    return DAGPromise._made(origin, counter, found.instance, function, (), {}, None)


def _returning(promise: DAGPromise[Any], is_async: bool) -> Callable[..., Any]:
    async def later(*args: object, **kwargs: object) -> Any:
        return promise

    return later if is_async else lambda *args, **kwargs: promise


def cache_proof(ring: Keyring, key: bytes, instance: bytes, node: bytes) -> bytes:
    """Return the proof that this node has the value of this cache key."""
    return ring.signs_under + ring.sign_statement(_VERSION + key + instance + node, CACHED)


def check_cache_proof(ring: Keyring, proof: bytes, key: bytes, instance: bytes, node: bytes) -> None:
    """Raise TamperedValue unless the proof is for these; UnverifiedValue if its key is not held here."""
    what = f"the cached value of node {node.hex()}"
    if len(instance) != INSTANCE_BYTES or len(node) != NODE_BYTES:
        raise TamperedValue(f"{what} of instance {instance.hex()} cannot be: these are no ids")
    ring.check_statement(_VERSION + key + instance + node, CACHED, proof[:ID_BYTES], proof[ID_BYTES:], what)
