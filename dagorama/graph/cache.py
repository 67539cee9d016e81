"""`@dagorama(cache=Cache(...))`: equal calls of a function share one value.

The rule: a worker computes the key when all arguments have values, and a node whose key cannot be computed fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from types import FunctionType
from typing import Any, Literal, NamedTuple, get_args

from dagorama.models import stored
from dagorama.retry import check_positive_seconds
from dagorama.user_code.function_parts import own_signature

#: Which calls share a value, see `Cache`.
Scope = Literal["instance", "definition", "function"]
_SCOPES: tuple[str, ...] = get_args(Scope)
CacheKey = Callable[..., object] | str


@stored.named("Cache")
@dataclass(frozen=True)
class Cache:
    """Describe how the values of a function are cached; raises ValueError, which names the invalid field.

    - `ttl`: seconds after which a value is not used again, by the broker's clock, from the moment when its node
      completed; None: as long as the broker keeps the instance of that node.
    - `scope`: which calls share values. "definition": calls in all instances of the definition that have equal
      constructor arguments, as long as no decorated method of it changes. "function": calls in all instances of all
      definitions that have the function, with any constructor arguments, as long as its own code does not change.
      "instance": calls within one instance.
    - `key`: what tells calls apart, instead of all their arguments: the name of a parameter, or a function that gets
      the arguments with all defaults, without `self`, and returns a value.
    """

    ttl: float | None = None
    scope: Scope = "definition"
    key: CacheKey | None = None

    def __post_init__(self) -> None:
        check_positive_seconds(ttl=self.ttl)
        if self.scope not in _SCOPES:
            raise ValueError(f'scope is {self.scope!r}: it must be "instance", "definition" or "function"')
        if not (self.key is None or isinstance(self.key, str) or callable(self.key)):
            raise ValueError(
                f"key is {self.key!r}: it must be the name of a parameter, or a function that returns a value for the "
                "arguments of the call"
            )


def check_cache_key(function: FunctionType, cache: Cache | None) -> None:
    """Raise ValueError if the key of a cache is a text that is not a parameter of `function` after `self`."""
    if cache is None or not isinstance(cache.key, str):
        return
    if cache.key not in own_signature(function).parameters:
        raise ValueError(f"the key of the cache is {cache.key!r}, which is not a parameter of {function.__qualname__}")


class KeyParts:
    """Finds the parts of the cache keys of the calls of one function."""

    __slots__ = ("_key", "_names", "_signature", "calls_user_code")

    def __init__(self, function: FunctionType, cache: Cache) -> None:
        self._signature = own_signature(function)
        own = self._signature.parameters.values()
        is_plain = all(each.kind is Parameter.POSITIONAL_OR_KEYWORD for each in own)
        # The names of all arguments if each call binds them in this order.
        self._names = {each.name: f"argument {each.name!r}" for each in own} if is_plain else None
        self._key = cache.key
        self.calls_user_code = callable(cache.key)  #: a function of the user makes the only part

    def __call__(self, args: tuple[object, ...], kwargs: dict[str, Any]) -> list[tuple[str, object]]:
        """Return the parts of the key of a call with these arguments, without `self`, each with its name for errors.

        Errors of the user's key function pass through.
        """
        if self._names is not None and not kwargs and len(args) == len(self._names) and not self.calls_user_code:
            parts = zip(self._names, self._names.values(), args, strict=True)  # `bind` takes ten times as long
            return [(what, value) for name, what, value in parts if self._key is None or name == self._key]
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if isinstance(self._key, str):
            return [(f"argument {self._key!r}", bound.arguments[self._key])]
        if self._key is not None:
            return [("the result of the key function", self._key(*bound.args, **bound.kwargs))]
        return [(f"argument {name!r}", value) for name, value in bound.arguments.items()]


class CachedRun(NamedTuple):
    """The run of a node with a cache key: it computes the value, or takes over the value of another node."""

    key: bytes
    proof: bytes  #: that the node has the value of the key; empty for a hit
    is_hit: bool
