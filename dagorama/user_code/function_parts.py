"""The parts of functions and of the objects around them: parameters, defaults, arguments of partials, overloads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, singledispatchmethod
from inspect import Parameter, Signature, signature
from types import FunctionType, MappingProxyType, MethodType
from typing import Any


def own_signature(method: Callable[..., Any]) -> Signature:
    """Return the signature of a method without `self`, which may also be the first of its `*args`."""
    found = signature(method)
    parameters = list(found.parameters.values())
    takes_any = bool(parameters) and parameters[0].kind is Parameter.VAR_POSITIONAL
    return found if takes_any else found.replace(parameters=parameters[1:])


def parts_of(value: Any) -> list[object]:
    """Return the arguments that a partial holds, and the object that a method is bound to."""
    parts: list[object] = []
    stack = functions_of(value) if isinstance(value, property) else [value]
    while stack:
        item = stack.pop()
        if isinstance(item, partial):
            parts += [*item.args, *(part for pair in sorted(item.keywords.items()) for part in pair)]
            stack.append(item.func)
        elif isinstance(item, MethodType):
            parts += [] if isinstance(item.__self__, type) else [item.__self__]
        elif isinstance(item, (staticmethod, classmethod)):
            stack.append(item.__func__)
    return parts


def functions_of(value: property) -> list[Any]:
    """Return the functions that read, write and delete a property."""
    return [part for part in (value.fget, value.fset, value.fdel) if part]


def overloads_of(value: Any) -> dict[type, Any]:
    """Return the functions that `functools.singledispatch` chooses from, by the type that they are for."""
    chooser = value.dispatcher if isinstance(value, singledispatchmethod) else value
    registry = getattr(chooser, "registry", None)
    return dict(registry) if isinstance(registry, MappingProxyType) else {}


def defaults_of(function: FunctionType) -> list[tuple[str, object]]:
    """Return the default values of a function, by the places or names of their parameters."""
    by_place = [(str(place), value) for place, value in enumerate(function.__defaults__ or ())]
    return [*by_place, *(function.__kwdefaults__ or {}).items()]
