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
from dagorama.graph.cache import Cache, key_parts
from dagorama.graph.constructor_arguments import unpacked
from dagorama.graph.scope import CachedRun
from dagorama.models.promise import DAGPromise
from dagorama.user_code.class_code import code_of
from dagorama.values.cache_proof import cache_proof, check_cache_proof
from dagorama.values.content_hash import content_hash

if TYPE_CHECKING:
    from types import FunctionType

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


def choose(
    ring: Keyring, call: Call, args: tuple[object, ...], kwargs: dict[str, Any], constructor: bytes | None, fresh: bool
) -> Chosen:
    """Return what runs for a node of a function with a cache; `fresh`: its own function in any case.

    Raises LookUp if the broker must look the key up first, UncacheableArgument, and TamperedValue if the broker names a
    node without a proof for this key.
    """
    key = cache_key(call, args, kwargs, constructor)
    ran = CachedRun(key, cache_proof(ring, key, call.instance, call.id), False)
    if fresh:
        return Chosen(ran, None)
    found = call.found
    if found is None:
        if not call.to_run:
            raise LookUp(key)
        return Chosen(ran, None)
    try:
        check_cache_proof(ring, found.proof, key, found.instance, found.node)
    except UnverifiedValue:
        return Chosen(ran, None)  # it was signed with a key that is no longer held here
    origin, counter = found.node[:ORIGIN_BYTES], int.from_bytes(found.node[ORIGIN_BYTES:], "big")
    promise = DAGPromise._made(origin, counter, found.instance, call.work.name, (), {}, None)
    return Chosen(ran._replace(is_hit=True), _returning(promise, call.work.is_async))


def _returning(promise: DAGPromise[Any], is_async: bool) -> Callable[..., Any]:
    async def later(*args: object, **kwargs: object) -> Any:
        return promise

    return later if is_async else lambda *args, **kwargs: promise


def cache_key(call: Call, args: tuple[object, ...], kwargs: dict[str, Any], constructor: bytes | None) -> bytes:
    """Return the cache key of a node, from the code that runs it and its arguments. Raises UncacheableArgument."""
    target = call.work.target
    assert target is not None
    assert target.cache is not None
    function: FunctionType = target.function  # type: ignore[assignment]  # decorated functions are such
    cache = target.cache
    try:
        parts = [content_hash(value, path) for path, value in key_parts(function, cache, args, kwargs)]
        if cache.scope != "function":
            given = unpacked(constructor)
            parts += [content_hash(value, f"constructor argument {index}") for index, value in enumerate(given.args)]
            named = {**given.kwargs, **given.contents, **given.changed}
            parts.append(content_hash(named, "the constructor arguments"))
    except UncacheableArgument as error:
        raise UncacheableArgument(f"{function.__qualname__} has a cache, and {error}") from None
    found = sha256(_VERSION)
    for part in (*_place(call, cache, function), *parts):
        found.update(len(part).to_bytes(8, "big") + part)
    return found.digest()


def _place(call: Call, cache: Cache, function: FunctionType) -> list[bytes]:
    """Return what the calls that share values have in common."""
    work, target = call.work, call.work.target
    assert target is not None
    # A key function is part of the code: with another one the same key has another meaning.
    rule = cache.key if isinstance(cache.key, str) else "function" if cache.key is not None else ""
    if cache.scope == "function":
        own = f"{function.__module__}:{function.__qualname__}"
        return [b"function", own.encode(), work.hash.encode(), rule.encode()]
    code = work.class_code or code_of(target.cls).text
    place = [cache.scope.encode(), work.name.encode(), work.hash.encode(), code.encode(), rule.encode()]
    return [*place, call.instance] if cache.scope == "instance" else place
