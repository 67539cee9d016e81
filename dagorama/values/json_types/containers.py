"""JSON types of containers: arrays, sets, objects with free keys, and plain JSON data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from dagorama.api.text_forms import INTEGER_PATTERN
from dagorama.values.json_types.misfit import Misfit, key_step
from dagorama.values.json_types.scalars import Float, Text
from dagorama.values.json_types.shape import Definitions, Hole, Holes, Shape

#: Keys of the objects that stand for promises.
PROMISE, OUTCOME = "$promise", "$outcome"


class Listed(Shape):
    """A list, or a tuple of any length, of values of one type."""

    kinds = frozenset({"array"})

    def __init__(self, name: str, kind: type[list[Any]] | type[tuple[Any, ...]], item: Shape) -> None:
        super().__init__(name)
        self._kind, self._item = kind, item
        self.types = frozenset({kind})

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        if type(value) is not self._kind:
            return self.unfit(value, holes)
        return _each(self._item.encode, value, holes)

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        if type(data) is not list:
            return self.unread(data, holes)
        found = _each(self._item.decode, data, holes)
        return found if self._kind is list else tuple(found)

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"type": "array", "items": self._item.schema(definitions)}


class Fixed(Shape):
    """A tuple with a type for each of its members."""

    kinds = frozenset({"array"})
    types = frozenset({tuple})

    def __init__(self, name: str, items: list[Shape]) -> None:
        super().__init__(name)
        self._items = items

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        return self._all(value, holes, "encode") if type(value) is tuple else self.unfit(value, holes)

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        return tuple(self._all(data, holes, "decode")) if type(data) is list else self.unread(data, holes)

    def _all(self, values: Any, holes: Holes | None, how: str) -> list[Any]:
        if len(values) != len(self._items):
            raise Misfit(f"has {len(values)} members; {self.name} is expected, with {len(self._items)}")
        found = []
        for index, (shape, value) in enumerate(zip(self._items, values, strict=True)):
            try:
                found.append(getattr(shape, how)(value, holes))
            except Misfit as misfit:
                raise misfit.at(f"[{index}]") from None
        return found

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {
            "type": "array", "prefixItems": [item.schema(definitions) for item in self._items], "items": False,
            "minItems": len(self._items),
        }  # fmt: skip


class Set(Shape):
    """A set or frozenset, written as an array in an order that depends only on its members."""

    kinds = frozenset({"array"})

    def __init__(self, name: str, kind: type[set[Any]] | type[frozenset[Any]], item: Shape) -> None:
        super().__init__(name)
        self._kind, self._item = kind, item
        self.types = frozenset({kind})

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        if type(value) is not self._kind:
            return self.unfit(value, holes)
        # The path of a member names no position: a set has none.
        try:
            found = [self._item.encode(member, holes) for member in value]
        except Misfit as misfit:
            raise misfit.at(", a member of it,") from None
        try:
            return sorted(found)
        except TypeError:
            return sorted(found, key=_text)

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        if type(data) is not list:
            return self.unread(data, holes)
        members = _each(self._item.decode, data, holes)
        try:
            found = self._kind(members)
        except TypeError:
            raise Misfit("has a member that is not hashable, which no set can hold") from None
        if len(found) < len(data) and not any(type(member) is Hole for member in data):
            raise Misfit(f"has a member twice; {self.name} is expected")
        return found

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"type": "array", "items": self._item.schema(definitions), "uniqueItems": True}


class Mapping(Shape):
    """A dict with keys that are texts in JSON."""

    kinds = frozenset({"object"})
    types = frozenset({dict})

    def __init__(self, name: str, key: Shape, value: Shape) -> None:
        super().__init__(name)
        key.check_as_key()
        self._key, self._value = key, value

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        if type(value) is not dict:
            return self.unfit(value, holes)
        found = _members(self._key.encode_key, self._value.encode, value, holes)
        if len(found) < len(value):
            raise Misfit("has two keys that are the same text in JSON")
        return checked_object(found, holes)

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        if type(data) is not dict:
            return self.unread(data, holes)
        found = _members(self._key.decode_key, self._value.decode, data, holes)
        if len(found) < len(data):
            raise Misfit("has two keys that are the same value")
        return found

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        found = {"type": "object", "additionalProperties": self._value.schema(definitions)}
        names = self._key.schema(definitions)
        if names.get("type") == "integer":
            names = {"pattern": INTEGER_PATTERN}
        return found if names == {"type": "string"} else {**found, "propertyNames": names}


class Anything(Shape):
    """JSON data of any kind: None, bool, int, float, str, and lists and dicts with str keys of these."""

    kinds = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
    is_closed = False

    def __init__(self) -> None:
        super().__init__("JSON data")
        self._list, self._dict = Listed("list", list, self), Mapping("dict", Text(), self)
        self._others = {bool: None, type(None): None, int: None, float: Float(), str: Text()}

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        if type(value) is list:
            return self._list.encode(value, holes)
        if type(value) is dict:
            return self._dict.encode(value, holes)
        if type(value) not in self._others:
            return self.unfit(value, holes)
        shape = self._others[type(value)]
        return value if shape is None else shape.encode(value)

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        if type(data) is list:
            return self._list.decode(data, holes)
        if type(data) is dict:
            return self._dict.decode(data, holes)
        if type(data) is Hole:
            return self.unread(data, holes)
        shape = self._others[type(data)]
        return data if shape is None else shape.decode(data)

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {}


def checked_object(found: dict[str, Any], holes: Holes | None) -> dict[str, Any]:
    """Return the data of an object, unless readers would take it for a promise."""
    if holes is not None and len(found) == 1 and (PROMISE in found or OUTCOME in found):
        (key,) = found
        raise Misfit(f"has the single key {key!r}, which marks a promise in arguments and results: add another")
    return found


def _each(convert: Callable[[Any, Holes | None], Any], values: Iterable[Any], holes: Holes | None) -> list[Any]:
    found = []
    for value in values:
        try:
            found.append(convert(value, holes))
        except Misfit as misfit:
            raise misfit.at(f"[{len(found)}]") from None
    return found


def _members(
    convert_key: Callable[[Any], Any],
    convert: Callable[[Any, Holes | None], Any],
    members: dict[Any, Any],
    holes: Holes | None,
) -> dict[Any, Any]:
    found = {}
    for key, member in members.items():
        try:
            converted = convert_key(key)
        except Misfit as misfit:
            raise misfit.at(f", its key {key_step(key)[1:-1]},") from None
        try:
            found[converted] = convert(member, holes)
        except Misfit as misfit:
            raise misfit.at(key_step(key)) from None
    return found


def _text(data: object) -> str:
    return json.dumps(data, sort_keys=True)
