"""Lists the content of a structured value for its hash: its items, its fields, and everything else that it holds.

The rule: nothing that an instance holds is left out, so that values that differ in any of it never share a hash.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cached_property, lru_cache
from types import MemberDescriptorType
from typing import Any, Generic

#: A part of a value, and what to add to the value's path for it.
Part = tuple[str, object]
#: Stands for a field that has no value.
UNSET = object()


def _items_of_deque(value: Any) -> list[object]:
    """Return the items, and the number at which a deque drops some, if there is one."""
    items = list(deque.__iter__(value))
    return items if value.maxlen is None else [*items, UNSET, value.maxlen]


_SEQUENCES = frozenset({list, tuple, deque})
_IMMUTABLE, _HEAP = 1 << 8, 1 << 9  # flags of a type: classes made by a `class` statement have only the second
#: Types of C that a class with fields may extend, and how their own content is read.
_READ: dict[type, Callable[[Any], object] | None] = {
    OrderedDict: lambda value: list(OrderedDict.items(value)),
    dict: lambda value: dict(dict.items(value)),
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    deque: _items_of_deque,
    set: lambda value: frozenset(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    **{kind: kind.__repr__ for kind in (int, float, complex, str, bytes, bytearray)},
    object: None,
}


def parts_of(value: Any, kind: type) -> list[Part] | None:
    """Return the parts of a sequence, a named tuple, a dataclass or a model; None for other types.

    The fields come first, in their order, then what exists besides them.
    """
    if kind in _SEQUENCES:
        items = _items_of_deque(value) if kind is deque else value
        return [(f"[{index}]", part) for index, part in enumerate(items)]
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        members = tuple.__iter__(value)  # by position, even if a subclass has replaced the names
        parts: list[Part] = [(f".{name}", part) for name, part in zip(kind._fields, members, strict=True)]
        return [*parts, *_besides(value, kind, frozenset())]
    names = _field_names(value, kind)
    base = _base(kind)
    if names is None or base is None:
        return None
    parts = [(f".{name}", _field(value, name)) for name in names]
    if (read := _READ[base]) is not None:
        parts.append(("", read(value)))
    return [*parts, *_besides(value, kind, frozenset(names))]


def _field_names(value: object, kind: type) -> tuple[str, ...] | None:
    if is_dataclass(value):
        return tuple(field.name for field in fields(value))
    if (names := getattr(kind, "__struct_fields__", None)) is not None:  # msgspec
        return tuple(names)
    if (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
        return tuple(attribute.name for attribute in attributes)
    if (names := getattr(kind, "__pydantic_fields__", None)) is not None:
        return tuple(sorted(names))
    return None


def _field(value: object, name: str) -> object:
    try:
        return getattr(value, name)
    except AttributeError:
        return UNSET


@lru_cache(maxsize=1024)
def _base(kind: type) -> type | None:
    """Return the type of C that the class extends; None if its content cannot be read."""
    c_types = [base for base in kind.__mro__ if _is_of_c(base) and not _is_empty(base)]
    return c_types[0] if all(base in _READ for base in c_types) else None


def _is_of_c(kind: type) -> bool:
    return not kind.__flags__ & _HEAP or bool(kind.__flags__ & _IMMUTABLE)


def _is_empty(kind: type) -> bool:
    """Return whether a type of C holds nothing besides the fields of the classes that extend it."""
    if issubclass(kind, BaseException):  # the arguments of an exception with fields are its fields
        return kind.__basicsize__ == BaseException.__basicsize__
    generic: object = Generic
    return kind is generic or kind.__module__.startswith("msgspec.")


def _besides(value: object, kind: type, known: frozenset[str]) -> Iterator[Part]:
    """Yield what a value holds besides its fields and items, by its name; nothing if there is none."""
    found = {name: part for name, part in _attributes(value, kind) if name not in known and not _derived(kind, name)}
    for extra in ("__pydantic_extra__", "__pydantic_private__"):
        found.update(getattr(value, extra, None) or {})
    if unset := known - getattr(value, "__pydantic_fields_set__", known):
        found["fields that are not set"] = unset  # `model_dump(exclude_unset=True)` leaves them out
    for name in sorted(found):
        yield f".{name}", name
        yield f".{name}", found[name]


def _attributes(value: object, kind: type) -> Iterator[Part]:
    yield from getattr(value, "__dict__", {}).items()
    for name, member in _slots(kind):
        try:
            yield name, member.__get__(value)
        except AttributeError:
            continue


@lru_cache(maxsize=1024)
def _slots(kind: type) -> tuple[tuple[str, MemberDescriptorType], ...]:
    return tuple(
        (name, member)
        for base in kind.__mro__
        # The slots of an attrs class are its fields and its cached properties.
        if base.__flags__ & _HEAP and "__attrs_attrs__" not in vars(base)
        for name, member in vars(base).items()
        if isinstance(member, MemberDescriptorType) and not name.startswith("__")
    )


def _derived(kind: type, name: str) -> bool:
    """Return whether an attribute was computed from the others, and kept."""
    if name == "_attrs_cached_hash":
        return True
    return any(isinstance(vars(base).get(name), cached_property) for base in kind.__mro__)
