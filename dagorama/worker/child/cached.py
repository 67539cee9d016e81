"""Decides for a node of a function with a cache whether it runs, or takes over a value that the broker has found.

The rule: the broker is believed only with a proof for the cache key that this process has computed itself; see
`dagorama.values.cached_values`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dagorama.errors import UnverifiedValue
from dagorama.graph.cache import CachedRun
from dagorama.graph.cache_keys import CacheKeys
from dagorama.models.promise import DAGPromise
from dagorama.values.cached_values import PROOF, check_cache_key, promise_of, sign_cache_key
from dagorama.values.signing import Keyring
from dagorama.worker.child.call import Call


class LookUp(Exception):
    """A node cannot run before the broker has looked its cache key up: it is returned. No error."""

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
            check_cache_key(ring, PROOF, found.proof, key, found.instance, found.node)
            promise = promise_of(found.instance, found.node, call.work.name)
            return Chosen(CachedRun(key, b"", True), _returning(promise, call.work.is_async))
        except UnverifiedValue:
            pass  # it was signed with a key that is no longer held here: the node runs
    return Chosen(CachedRun(key, sign_cache_key(ring, PROOF, key, call.instance, call.id), False), None)


def _returning(promise: DAGPromise[Any], is_async: bool) -> Callable[..., Any]:
    async def later(*args: object, **kwargs: object) -> Any:
        return promise

    return later if is_async else lambda *args, **kwargs: promise
