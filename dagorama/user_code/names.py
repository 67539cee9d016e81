"""Names of classes and decorated methods on the wire.

The rule: a name tells where to find an object in a module, and nothing about its code.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from dagorama.errors import FunctionNotFound
from dagorama.user_code.modules import public_name


def class_name(cls: type) -> str:
    """Return "module:Class"; the module of a script run by `python -m` has its own name, not `__main__`."""
    return f"{public_name(cls.__module__)}:{cls.__qualname__}"


def wire_name(cls: type, function: Callable[..., Any]) -> str:
    """Return the name of a decorated function on a definition's class.

    "module:Class.method", also if that class has the method from its base; and for a method that the class
    overrides and super() calls, "module:Class.method@module:Base". Raises FunctionNotFound.
    """
    return f"{class_name(cls)}.{method_key(cls, function)}"


def method_key(cls: type, function: Callable[..., Any]) -> str:
    """Return the part of a method's wire name after the name of the class. Raises FunctionNotFound."""
    base, method = _place_on(cls, function)
    if decorated_method(cls, method) is base.__dict__[method]:
        return method
    return f"{method}@{class_name(base)}"


def decorated_method(cls: type, method: str, base_name: str = "") -> Any:
    """Return the wrapper named `method` on `cls`, or on the base of that name; None if the method is not decorated."""
    for base in cls.__mro__:
        if method in base.__dict__ and base_name in ("", class_name(base)):
            found = base.__dict__[method]
            return found if plain_function(found) is not None else None
    return None


def plain_function(found: object) -> Callable[..., Any] | None:
    """Return the plain function of a decorated function; None for any other object."""
    return found.__dict__.get("original_fn") if isinstance(found, FunctionType) else None


def _place_on(cls: type, function: Callable[..., Any]) -> tuple[type, str]:
    """Return the base of `cls` that contains the decorated function, and its name there."""
    likely = getattr(function, "__qualname__", "").rpartition(".")[2]
    for base in cls.__mro__:
        if plain_function(base.__dict__.get(likely)) is function:
            return base, likely
    for base in cls.__mro__:
        for name, found in base.__dict__.items():
            if plain_function(found) is function:
                return base, name
    raise FunctionNotFound(
        f"{getattr(function, '__qualname__', function)} is not a method of {class_name(cls)}, so no worker could "
        "find it; decorate it in the class, or in one of its bases"
    )
