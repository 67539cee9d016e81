"""Computes cache keys: hashes of the code that runs a node and of the values of its arguments.

The rule: all workers compute the same key for equal calls, and no broker needs to know how.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from dagorama.errors import UncacheableArgument
from dagorama.graph.cache import Cache, KeyParts
from dagorama.graph.constructor_arguments import unpacked
from dagorama.user_code.class_code import code_of
from dagorama.values.content_hash import content_hash

if TYPE_CHECKING:
    from hashlib import _Hash as Hash
    from types import FunctionType

_VERSION = b"dagorama cache key 1"


class CacheKeys:
    """Computes the cache keys of the nodes of one function, from the code that runs them and their arguments."""

    __slots__ = ("_common", "_has_instance", "_has_self", "_name", "_parts")

    def __init__(self, cache: Cache, function: FunctionType, cls: type, name: str, code: str, class_code: str) -> None:
        """Take the name and the code of the function from its nodes; without `class_code`, the code of `cls` counts."""
        self._parts = KeyParts(function, cache)
        self._name = function.__qualname__
        self._has_self, self._has_instance = cache.scope != "function", cache.scope == "instance"
        # With a key function instead of a parameter the same key has another meaning.
        rule = cache.key if isinstance(cache.key, str) else "" if cache.key is None else "()"
        where = [name, class_code or code_of(cls).text] if self._has_self else [function.__module__, self._name]
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
                _add(found, _of_constructor(constructor))
        except UncacheableArgument as error:
            raise UncacheableArgument(f"{self._name} has a cache, and {error}") from None
        return found.digest()


def _add(found: Hash, part: bytes) -> None:
    found.update(len(part).to_bytes(8, "big") + part)


def _of_constructor(constructor: bytes) -> bytes:
    """Return the hash of the constructor arguments of a definition, and of what was assigned to it since."""
    args, kwargs, changed, contents = unpacked(constructor)
    return content_hash((args, dict(kwargs), {**contents, **changed}), "the constructor arguments")
