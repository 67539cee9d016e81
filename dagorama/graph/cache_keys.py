"""Computes cache keys: hashes of the code that runs a node and of the values of its arguments.

The rule: all workers compute the same key for equal calls, and no broker needs to know how. A caller that passes values
computes and signs it too, so that the node needs no worker if the broker has its value, and else runs at once. A worker
that runs the node computes it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from dagorama.api import broker_pb2
from dagorama.api.contract import CACHE_KEY_BYTES, CACHE_SIGNATURE_BYTES, REFRESH
from dagorama.errors import UncacheableArgument
from dagorama.graph.cache import Cache, KeyParts
from dagorama.graph.constructor_arguments import unpacked
from dagorama.models.value_ref import ValueRef
from dagorama.values.codec import Encoded
from dagorama.values.content_hash import content_hash

if TYPE_CHECKING:
    from hashlib import _Hash as Hash
    from types import FunctionType

_VERSION = b"dagorama cache key 1"
#: Bytes that a cache key and its signature take in a message.
CACHE_KEY_WEIGHT = CACHE_KEY_BYTES + CACHE_SIGNATURE_BYTES + 8


class Announced(NamedTuple):
    """The cache key of a node, as its caller has computed and signed it."""

    key: bytes
    signature: bytes


class CacheKeys:
    """Computes the cache keys of the nodes of one function, from the code that runs them and their arguments."""

    __slots__ = ("_common", "_constructor", "_has_instance", "_has_self", "_name", "_parts")

    def __init__(self, cache: Cache, function: FunctionType, name: str, code: str, class_code: str) -> None:
        """Take the name, the code and the class's code of the function from its nodes."""
        self._parts = KeyParts(function, cache)
        self._constructor = b"", b""  # the last constructor arguments, and their hash
        self._name = function.__qualname__
        self._has_self, self._has_instance = cache.scope != "function", cache.scope == "instance"
        # With a key function instead of a parameter the same key has another meaning.
        rule = cache.key if isinstance(cache.key, str) else "" if cache.key is None else "()"
        where = [name, class_code] if self._has_self else [function.__module__, self._name]
        self._common = sha256(_VERSION)
        for part in (cache.scope, rule, code, *where):
            _add(self._common, part.encode())

    def key(
        self, instance: bytes, args: tuple[object, ...], kwargs: dict[str, Any], constructor: bytes | None
    ) -> bytes:
        """Return the key of a node of this instance. Raises UncacheableArgument."""
        found = self._common.copy()
        if self._has_instance:
            _add(found, instance)
        try:
            for path, value in self._parts(args, kwargs):
                _add(found, content_hash(value, path))
            if constructor is not None and self._has_self:
                _add(found, self._of_constructor(constructor))
        except UncacheableArgument as error:
            raise UncacheableArgument(f"{self._name} has a cache, and {error}") from None
        return found.digest()

    def at_call(
        self,
        encoded: Encoded,
        instance: bytes,
        args: tuple[object, ...],
        kwargs: dict[str, Any],
        constructor: bytes | ValueRef | None,
    ) -> bytes | None:
        """Return the key of a call, given its arguments also as they are sent; None if there is nothing to announce.

        Only a worker knows the values of promises, runs the user's key function, and finds out what is wrong with
        values. A refreshed call is not looked up.
        """
        if encoded.refs or encoded.envelope[1] & REFRESH:
            return None
        if self._parts.calls_user_code or isinstance(constructor, ValueRef):
            return None
        try:
            return self.key(instance, args, kwargs, constructor)
        except UncacheableArgument:
            return None  # the node will fail with it

    def _of_constructor(self, constructor: bytes) -> bytes:
        """Return the hash of the constructor arguments of a definition, and of what was assigned to it since."""
        last, found = self._constructor
        if last != constructor:
            try:
                args, kwargs, changed, contents = unpacked(constructor)
            except Exception as error:
                raise UncacheableArgument(
                    f"the constructor arguments cannot be read here ({type(error).__name__}: {error}): use "
                    'Cache(scope="function") if the function does not need them'
                ) from error
            found = content_hash((args, dict(kwargs), {**contents, **changed}), "the constructor arguments")
            self._constructor = constructor, found
        return found


def _add(found: Hash, part: bytes) -> None:
    found.update(len(part).to_bytes(8, "big") + part)


def add_cache_keys(message: broker_pb2.Nodes, keys: Mapping[int, Announced], start: int, stop: int) -> None:
    """Add the cache keys of the nodes from `start` to `stop` to their message; `keys` has them by position."""
    for position in sorted(keys.keys() & range(start, stop)):
        message.cached.append(position - start)
        message.cache_key.append(keys[position].key)
        message.cache_announcement.append(keys[position].signature)
