"""What a child does with a node whose values are cached: compute its key, and take over a value that was found.

The rule: the broker says which node has the value, and this process believes it only with a proof for the key that it
has computed itself, from verified arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from dagorama.api.contract import ORIGIN_BYTES
from dagorama.errors import UncacheableArgument, UnverifiedValue
from dagorama.graph.cache import Cache, KeyParts
from dagorama.graph.constructor_arguments import unpacked
from dagorama.graph.scope import CachedRun
from dagorama.models.promise import DAGPromise
from dagorama.user_code.class_code import code_of
from dagorama.values.cache_proof import cache_proof, check_cache_proof
from dagorama.values.content_hash import content_hash

if TYPE_CHECKING:
    from hashlib import _Hash as Hash
    from types import FunctionType

    from dagorama.api import broker_pb2 as pb
    from dagorama.values.signing import Keyring
    from dagorama.worker.child.call import Call

_VERSION = b"dagorama cache key 1"


class LookUp(Exception):
    """A node cannot run before the broker has looked its cache key up: it is given back. No error."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.key = key


class Chosen(NamedTuple):
    """What runs for a node."""

    run: CachedRun
    function: Callable[..., Any] | None  #: returns the promise of the node that has the value; None: the node's own


class CacheKeys:
    """Computes the cache keys of the nodes of one function, from the code that runs them and their arguments."""

    __slots__ = ("_common", "_has_instance", "_has_self", "_name", "_parts")

    def __init__(self, cache: Cache, function: FunctionType, cls: type, name: str, code: str, class_code: str) -> None:
        """`name`, `code` and `class_code` are those of the nodes; without `class_code`, that of `cls` counts."""
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


def choose(
    ring: Keyring,
    call: Call,
    keys: CacheKeys,
    args: tuple[object, ...],
    kwargs: dict[str, Any],
    constructor: bytes | None,
    fresh: bool,
) -> Chosen:
    """Return what runs for a node of a function with a cache; `fresh`: its own function in any case.

    Raises LookUp if the broker must look the key up first, UncacheableArgument, and TamperedValue if the broker names a
    node without a proof for this key.
    """
    key, found = keys.key(call.instance, args, kwargs, constructor), call.found
    if found is None and not call.to_run and not fresh:
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
