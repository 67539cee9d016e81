"""Names that dagorama uses on every definition and instance, and that definitions must not use.

The rule: such a name is refused when the class is created, or when a definition is called that has set one. Otherwise
the attribute of dagorama would hide the definition's, and a node would get the wrong one without an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dagorama.errors import ReservedName

PREFIX = "_dagorama_"
#: Names that an instance uses itself, and their meanings.
OF_INSTANCES: Mapping[str, str] = {
    "definition": "the definition of an instance",
    "instance_id": "the ID of an instance",
    "_dagorama_id": "private to dagorama",
    "_dagorama_scope": "private to dagorama",
    "__class__": "the class of an object",
}
_OF_DEFINITIONS: Mapping[str, str] = {
    "attach": "the class method that finds an instance again",
    "__call__": "the call that makes an instance",
}
_RESERVED = {**OF_INSTANCES, **_OF_DEFINITIONS}


def check_class(cls: type, own: Iterable[type]) -> None:
    """Raise ReservedName if `cls` or a base, except the classes in `own`, defines or annotates a reserved name."""
    for base in cls.__mro__:
        if base is object or base in own:
            continue
        for name in (*base.__dict__, *vars(base).get("__annotations__", ())):
            if name in _RESERVED or name.startswith(PREFIX):
                raise refusal(name, base, cls)


def check_attributes(definition: object) -> None:
    """Raise ReservedName if a reserved name was set on `definition`, for example by its `__init__`."""
    attributes = definition.__dict__
    if attributes and not _RESERVED.keys().isdisjoint(attributes):
        name = next(name for name in _RESERVED if name in attributes)
        raise refusal(name, type(definition), type(definition))


def refusal(name: str, owner: type, cls: type) -> ReservedName:
    """Return the error for a name that `owner`, which is `cls` or one of its bases, defines or sets."""
    meaning = _RESERVED.get(name, "private to dagorama")
    inherited = "" if owner is cls else f", which {cls.__qualname__} inherits"
    return ReservedName(
        f"{owner.__qualname__}.{name}{inherited}: dagorama uses the name {name!r} itself ({meaning}); "
        "give the attribute or method another name"
    )
