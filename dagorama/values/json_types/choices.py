"""JSON types of enums and literals: one of a number of values."""

from __future__ import annotations

from enum import Enum, Flag
from types import NoneType
from typing import Any

from dagorama.values.json_types.misfit import Misfit, Unsupported
from dagorama.values.json_types.shape import Definitions, Holes, Shape

_JSON = {str: "string", int: "integer", bool: "boolean", NoneType: "null"}


class Choice(Shape):
    """One of a number of values, each written as a text, an integer, a boolean or null."""

    def __init__(self, name: str, values: dict[tuple[type, Any], Any]) -> None:
        """`values` has the values by the types and values of their JSON data."""
        super().__init__(name)
        self.values = values
        self._data = {(type(value), value): data for (_, data), value in values.items()}
        self.types = frozenset(map(type, values.values()))
        self.kinds = frozenset(_JSON[kind] for kind, _ in values)

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        if type(value) not in self.types:
            return self.unfit(value, holes)
        key = type(value), value
        if key not in self._data:
            raise Misfit(f"is another value; {self.name} is expected")
        return self._data[key]

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        if type(data) not in _JSON:
            return self.unread(data, holes)
        key = type(data), data
        if key not in self.values:
            raise Misfit(f"is another value; {self.name} is expected")
        return self.values[key]

    def check_as_key(self) -> None:
        if self.kinds != {"string"}:
            super().check_as_key()

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"enum": [data for _, data in self.values]}


def enum_shape(kind: type[Enum]) -> Shape:
    """Return the JSON type of an enum, whose members are written as their values. Raises Unsupported."""
    if issubclass(kind, Flag):
        raise Unsupported(f"{kind.__qualname__} is a Flag: pass a set of members of an Enum")
    data = {(type(member._value_), member._value_): member for member in kind}
    if not data or not {key[0] for key in data} <= {str, int}:
        raise Unsupported(f"the values of {kind.__qualname__} must be texts or integers: other readers see them")
    return Choice(kind.__qualname__, data)


def literal_shape(name: str, values: tuple[Any, ...]) -> Shape:
    """Return the JSON type of a Literal. Raises Unsupported."""
    found: dict[tuple[type, Any], Any] = {}
    for value in values:
        data = value._value_ if isinstance(value, Enum) else value
        if type(data) not in _JSON or ((type(data), data) in found and found[type(data), data] is not value):
            raise Unsupported(f"{name} has values that JSON cannot tell apart, or does not have")
        found[type(data), data] = value
    return Choice(name, found)
