"""Reduce objects of the standard library that cloudpickle cannot send, or would replace by other ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from io import TextIOWrapper
from typing import Any, NewType, NoReturn, ParamSpec, TypeVarTuple

from dagorama.models import stored
from dagorama.user_code.modules import is_local, local_modules, named

Reducer = Callable[[Any], tuple[Any, ...] | str]


def standard_reducers(
    theirs: Mapping[type, Reducer], by_name: Callable[[Any], tuple[Any, ...] | None]
) -> dict[type, Reducer]:
    """Return reducers by type; `theirs` are cloudpickle's, and `by_name` reduces what others import by another name."""

    def file(found: TextIOWrapper) -> tuple[Any, ...] | str:
        # cloudpickle replaces a file by a copy of its contents, and what is written to the copy is lost.
        is_standard = found is sys.stdout or found is sys.stderr
        return theirs[TextIOWrapper](found) if is_standard else _refuse(found)

    def view(found: memoryview) -> tuple[Any, ...] | str:
        # cloudpickle replaces a view by its bytes, which are other items than the numbers of an array.
        return theirs[memoryview](found) if found.format == "B" and found.ndim == 1 else _refuse(found)

    def by_value(make: Callable[[Any], tuple[Any, ...]]) -> Reducer:
        def reduced(found: Any) -> tuple[Any, ...] | str:
            # It pickles as a name, under which no other process finds it if it is local.
            if _is_local(found):
                return make(found)
            by_its_name: tuple[Any, ...] | str = by_name(found) or found.__reduce__()
            return by_its_name

        return reduced

    by_names = {kind: by_value(make) for kind, make in _NAMED.items()}
    return {TextIOWrapper: file, memoryview: view, cached_property: _property, **by_names}


def _is_local(found: Any) -> bool:
    """Return whether other processes cannot import an object under its name."""
    if found.__module__ is None or hasattr(found, "__qualname__"):
        return found.__module__ is None or is_local(found)
    return found.__module__ in local_modules or named(sys.modules.get(found.__module__), found.__name__) is not found


def _property(found: cached_property[Any]) -> tuple[Any, ...]:
    # Before Python 3.12 it has a lock.
    return cached_property, (found.func,), {name: part for name, part in vars(found).items() if name != "lock"}


@stored.named("cached_function")
def _cached_function(function: Callable[..., Any], parameters: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a function with an empty cache, as functools.lru_cache makes it."""
    cached: Callable[..., Any] = lru_cache(**parameters)(function)
    return cached


def _new_type(found: Any) -> tuple[Any, ...]:
    names = {"__module__": found.__module__, "__qualname__": found.__qualname__}
    return NewType, (found.__name__, found.__supertype__), names


#: Objects that pickle as names, by type: how they are made again.
_NAMED: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    type(lru_cache(len)): lambda found: (_cached_function, (found.__wrapped__, found.cache_parameters())),
    NewType: _new_type,
    ParamSpec: lambda found: (ParamSpec, (found.__name__,)),
    TypeVarTuple: lambda found: (TypeVarTuple, (found.__name__,)),
}


def _refuse(found: object) -> NoReturn:
    raise TypeError(f"cannot pickle {type(found).__qualname__!r} object")
