"""JSON types of records: dataclasses and TypedDicts as objects, NamedTuples as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dagorama.values.json_types.choices import Choice
from dagorama.values.json_types.containers import checked_object
from dagorama.values.json_types.misfit import Misfit, key_step
from dagorama.values.json_types.shape import Definitions, Holes, Shape


class Field(NamedTuple):
    """A field of a record."""

    shape: Shape
    is_required: bool
    default: Any = None  #: for the schema: JSON data, if `has_default`
    has_default: bool = False


class Record(Shape):
    """An object with named fields. `fields` is set after it was made, because a record may contain itself."""

    kinds = frozenset({"object"})

    def __init__(self, kind: type) -> None:
        super().__init__(kind.__qualname__)
        self.kind = kind
        self.types = frozenset({kind})
        self._fields: dict[str, Field] = {}
        self.required: frozenset[str] = frozenset()

    @property
    def fields(self) -> dict[str, Field]:
        return self._fields

    @fields.setter
    def fields(self, fields: dict[str, Field]) -> None:
        self._fields = fields
        self.required = frozenset(name for name, field in fields.items() if field.is_required)

    def tags(self) -> dict[str, frozenset[Any]]:
        """Return the JSON data that required fields with few values may have, by field."""
        return {
            name: frozenset(field.shape.values) for name, field in self._fields.items()
            if field.is_required and isinstance(field.shape, Choice)
        }  # fmt: skip

    def may_be(self, data: Mapping[str, Any]) -> bool:
        """Return whether the names of the fields, and the fields with few values, fit."""
        if not self.required <= data.keys() <= self._fields.keys():
            return False
        return all(_is_one_of(data[name], values) for name, values in self.tags().items())

    def _read(self, data: dict[str, Any], holes: Holes | None) -> dict[str, Any]:
        """Return the values of an object by field."""
        if missing := self.required - data.keys():
            raise Misfit(f"has no {sorted(missing)[0]!r}; {self.name} is expected")
        found = {}
        for name, value in data.items():
            field = self._fields.get(name)
            if field is None:
                raise Misfit(f"has {key_step(name)[1:-1]}, which {self.name} does not have")
            try:
                found[name] = field.shape.decode(value, holes)
            except Misfit as misfit:
                raise misfit.at(self.step(name)) from None
        return found

    def step(self, name: str) -> str:
        """Return the step of a path that leads to a field."""
        return f".{name}"

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return defined(self, self.kind.__name__, definitions, self._schema)

    def _schema(self, definitions: Definitions) -> dict[str, Any]:
        properties = {}
        for name, field in self._fields.items():
            properties[name] = field.shape.schema(definitions)
            if field.has_default:
                properties[name] = {**properties[name], "default": field.default}
        required = [name for name in self._fields if name in self.required]
        return {
            "type": "object", "title": self.kind.__name__, "properties": properties, "required": required,
            "additionalProperties": False,
        }  # fmt: skip


def _is_one_of(data: object, values: frozenset[Any]) -> bool:
    return not isinstance(data, (list, dict)) and (type(data), data) in values


class Dataclass(Record):
    """A dataclass. An object is given to its constructor; fields with defaults may be missing."""

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        if type(value) is not self.kind:
            return self.unfit(value, holes)
        found = {}
        for name, field in self._fields.items():
            try:
                found[name] = field.shape.encode(getattr(value, name), holes)
            except Misfit as misfit:
                raise misfit.at(f".{name}") from None
            except AttributeError:
                raise Misfit(f"has no value for its field {name!r}") from None
        return checked_object(found, holes)

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        if type(data) is not dict:
            return self.unread(data, holes)
        values = self._read(data, holes)
        try:
            return self.kind(**values)
        except Exception as error:
            raise Misfit(f"is refused by {self.name} itself ({type(error).__name__}: {error})") from error


class Typed(Record):
    """A TypedDict."""

    def __init__(self, kind: type) -> None:
        super().__init__(kind)
        self.types = frozenset({dict})

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        if type(value) is not dict:
            return self.unfit(value, holes)
        if missing := self.required - value.keys():
            raise Misfit(f"has no {sorted(missing)[0]!r}; {self.name} is expected")
        found = {}
        for name, member in value.items():
            field = self._fields.get(name) if type(name) is str else None
            if field is None:
                raise Misfit(f"has the key {key_step(name)[1:-1]}, which {self.name} does not have")
            try:
                found[name] = field.shape.encode(member, holes)
            except Misfit as misfit:
                raise misfit.at(key_step(name)) from None
        return checked_object(found, holes)

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        return self._read(data, holes) if type(data) is dict else self.unread(data, holes)

    def step(self, name: str) -> str:
        return key_step(name)


class Named(Shape):
    """A NamedTuple, which is an array: its fields in order, without the last ones that have defaults, if missing."""

    kinds = frozenset({"array"})

    def __init__(self, kind: Any) -> None:
        super().__init__(kind.__qualname__)
        self._kind = kind
        self.types = frozenset({kind})
        self.fields: list[tuple[str, Field]] = []

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        if type(value) is not self._kind:
            return self.unfit(value, holes)
        return [self._one("encode", place, member, holes) for place, member in zip(self.fields, value, strict=True)]

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        if type(data) is not list:
            return self.unread(data, holes)
        least = sum(field.is_required for _, field in self.fields)
        if not least <= len(data) <= len(self.fields):
            raise Misfit(f"has {len(data)} members; {self.name} is expected, with {len(self.fields)}")
        places = zip(self.fields, data, strict=False)
        return self._kind(*(self._one("decode", place, member, holes) for place, member in places))

    def _one(self, how: str, place: tuple[str, Field], member: Any, holes: Holes | None) -> Any:
        try:
            return getattr(place[1].shape, how)(member, holes)
        except Misfit as misfit:
            raise misfit.at(f".{place[0]}") from None

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return defined(self, self._kind.__name__, definitions, self._schema)

    def _schema(self, definitions: Definitions) -> dict[str, Any]:
        items = [{**field.shape.schema(definitions), "title": name} for name, field in self.fields]
        least = sum(field.is_required for _, field in self.fields)
        return {
            "type": "array", "title": self._kind.__name__, "prefixItems": items, "items": False, "minItems": least
        }  # fmt: skip


_OWNERS = "$owners"  #: in `definitions` while a schema is made: the shapes that the names belong to


def defined(owner: Shape, name: str, definitions: Definitions, make: Any) -> dict[str, Any]:
    """Return a reference to the schema of a shape, which is made once and added to `definitions`."""
    owners: dict[str, Shape] = definitions.setdefault(_OWNERS, {})
    chosen, number = name, 1
    while owners.get(chosen, owner) is not owner or (chosen in definitions and chosen not in owners):
        number += 1
        chosen = f"{name}{number}"
    if chosen not in owners:
        owners[chosen] = owner
        definitions[chosen] = {}
        definitions[chosen] = make(definitions)
    return {"$ref": f"#/$defs/{chosen}"}


def without_owners(definitions: Definitions) -> Definitions:
    """Return only the schemas of `definitions`."""
    return {name: schema for name, schema in definitions.items() if name != _OWNERS}
