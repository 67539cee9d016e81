"""Reduce objects of the standard library that cloudpickle cannot send, or would replace by other ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache, singledispatch, update_wrapper
from io import TextIOWrapper
from types import FunctionType
from typing import Any, NewType, NoReturn, ParamSpec, TypeVarTuple

from dagorama.models import stored
from dagorama.user_code.modules import is_local, local_modules, named

if sys.version_info >= (3, 12):
    from typing import TypeAliasType

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
    if sys.version_info >= (3, 12):
        by_names[TypeAliasType] = by_value(_reduce_aliases())
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


def reduced_overloads(function: FunctionType, overloads: Mapping[type, Any]) -> tuple[Any, ...]:
    """Reduce a function of functools.singledispatch, which holds weak references."""
    own = {name: part for name, part in vars(function).items() if name not in _OF_DISPATCH}
    return _single_dispatch, (), (dict(overloads), own), None, None, _fill_dispatch


@stored.named("single_dispatch")
def _single_dispatch() -> Any:
    """Return a function without overloads: they may name it, and are added when it is there."""
    return singledispatch(lambda *args: None)


@stored.named("fill_dispatch")
def _fill_dispatch(function: Any, state: tuple[dict[type, Any], dict[str, Any]]) -> None:
    """Add the overloads to the function, and the attributes that it had."""
    overloads, own = state
    for kind, overload in overloads.items():
        function.register(kind, overload)
    update_wrapper(function, overloads[object])
    vars(function).update(own)


def _new_type(found: Any) -> tuple[Any, ...]:
    names = {"__module__": found.__module__, "__qualname__": found.__qualname__}
    return NewType, (found.__name__, found.__supertype__), names


def _reduce_aliases() -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that reduces aliases of `type` statements, which may name themselves, for one pickle."""
    boxes: dict[int, list[Any]] = {}

    def reduced(found: Any) -> tuple[Any, ...]:
        parameters = found.__type_params__
        if parameters and id(found) in boxes:
            raise TypeError(f"cannot pickle the type {found.__name__}, which has parameters and names itself")
        # If it is reached again from its own value, the same list is named in the pickle, and filled later.
        box = boxes.setdefault(id(found), [found.__value__])
        return _type_alias, (found.__name__, found.__module__, box, parameters)

    return reduced


@stored.named("type_alias")
def _type_alias(name: str, module: str | None, box: list[Any], parameters: tuple[Any, ...]) -> Any:
    """Return an alias of the type in the list, which may be put there later if the alias has no parameters."""
    names = {"box": box, "parameters": parameters, "__name__": module}
    if parameters:
        exec(
            f"from typing import TypeAliasType; {name} = TypeAliasType({name!r}, box[0], type_params=parameters)", names
        )
    else:
        exec(f"type {name} = box[0]", names)
    return names[name]


#: Attributes that functools gives to such a function.
_OF_DISPATCH = frozenset({*vars(_single_dispatch()), "__wrapped__"})
#: Objects that pickle as names, by type: how they are made again.
_NAMED: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    type(lru_cache(len)): lambda found: (_cached_function, (found.__wrapped__, found.cache_parameters())),
    NewType: _new_type,
    ParamSpec: lambda found: (ParamSpec, (found.__name__,)),
    TypeVarTuple: lambda found: (TypeVarTuple, (found.__name__,)),
}


def _refuse(found: object) -> NoReturn:
    raise TypeError(f"cannot pickle {type(found).__qualname__!r} object")
