"""Tells whether a signal plainly does not fit the type that a node waits for, by the JSON schema of that type.

The rule: what is refused here, the worker that reads the signal would refuse too. A schema cannot say everything, so
the worker may still refuse what fits. If pydantic or msgspec reads a part, it may convert it, so less is refused. A
schema comes from a caller, so each word of it may have any JSON as its value: what cannot be read refuses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from math import isfinite
from operator import ge, gt, le, lt
from typing import Any

from dagorama.api import text_forms

#: Parts of schemas and data that are compared; larger ones may fit.
MOST_STEPS = 20_000

#: The Python types of JSON data for each type of a schema.
_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "null": (type(None),),
    "number": (int, float), "integer": (int, float),
}  # fmt: skip
#: Readers of texts by the words of a schema that ask for them.
_READERS: dict[tuple[str, str], Callable[[str], object]] = {
    ("format", "date-time"): text_forms.read_datetime,
    ("format", "date"): text_forms.read_date,
    ("format", "time"): text_forms.read_time,
    ("format", "duration"): text_forms.read_duration,
    ("format", "uuid"): text_forms.read_uuid,
    ("contentEncoding", "base64"): text_forms.read_bytes,
    ("pattern", text_forms.DECIMAL_PATTERN): text_forms.read_decimal,
    ("pattern", text_forms.INTEGER_PATTERN): text_forms.read_integer,
}

_Schema = Mapping[str, Any]


class _TooLarge(Exception):
    """There is more to compare than is allowed."""


def misfit(schema: bytes, data: object) -> str:
    """Return why JSON data plainly do not fit a JSON schema, as "lacks 'yes'" does; empty: they may fit."""
    found = _mapped(_read(schema)) if schema else {}
    try:
        return _Comparison(_mapped(found.get("$defs"))).why(found, data)
    except (_TooLarge, RecursionError):
        return ""


@lru_cache(maxsize=256)
def _read(schema: bytes) -> object:
    try:
        return json.loads(schema)
    except (ValueError, RecursionError):
        return None


class _Comparison:
    """Compares data with one schema."""

    def __init__(self, definitions: _Schema) -> None:
        self._definitions = definitions
        self._steps = 0

    def why(self, schema: object, data: object, path: str = "", is_lax: bool = False) -> str:
        """Return why data do not fit; `is_lax`: a library reads them, which may convert them."""
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise _TooLarge
        if schema is False:
            return f"has {_shown(data)}{_at(path)}, which is not expected"
        words = _mapped(schema)
        is_lax = is_lax or words.get("$comment") == text_forms.READ_BY_LIBRARY
        if "$ref" in words:
            return self.why(self._referred(words), data, path, is_lax)
        return next((why for why in self._whys(words, data, path, is_lax) if why), "")

    def _referred(self, schema: _Schema) -> object:
        """Return the definition that a schema refers to, or None if it is missing; else the schema itself."""
        if "$ref" not in schema:
            return schema
        return self._definitions.get(f"{schema['$ref']}".removeprefix("#/$defs/"))

    def _whys(self, schema: _Schema, data: object, path: str, is_lax: bool) -> Iterator[str]:
        yield self._kind(schema, data, path, is_lax)
        for word in ("anyOf", "oneOf"):
            yield self._union(schema.get(word), data, path, is_lax)
        for part in _listed(schema.get("allOf")):
            yield self.why(part, data, path, is_lax)
        if type(data) is str:
            yield self._text(schema, data, path, is_lax)
        elif type(data) in (int, float):
            yield _number(schema, data, path, is_lax)
        elif type(data) is list:
            yield from self._array(schema, data, path, is_lax)
        elif type(data) is dict:
            yield from self._object(schema, data, path, is_lax)

    def _kind(self, schema: _Schema, data: object, path: str, is_lax: bool) -> str:
        kind = schema.get("type")
        if type(kind) is str and kind in _KINDS and not _is_of(kind, data, is_lax):
            return f"is {_shown(data)}{_at(path)}, and a JSON {kind} is expected"
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if type(values) is list and not any(_is_same(value, data, is_lax) for value in values):
            return f"is {_shown(data)}{_at(path)}, and one of {_shown(values)} is expected"
        return ""

    def _union(self, members: object, data: object, path: str, is_lax: bool) -> str:
        found = _listed(members)
        whys = [self.why(member, data, path, is_lax) for member in found]
        if not whys or not all(whys):
            return ""
        # If only one member is of that kind, it says what is wrong.
        nearest = [why for member, why in zip(found, whys, strict=True) if self._may_be(member, data)]
        return nearest[0] if len(nearest) == 1 else f"is {_shown(data)}{_at(path)}, which fits no type of a union"

    def _may_be(self, member: object, data: object) -> bool:
        kind = _mapped(self._referred(_mapped(member))).get("type")
        return type(kind) is str and _is_of(kind, data, True)

    def _text(self, schema: _Schema, data: str, path: str, is_lax: bool) -> str:
        if is_lax:
            return ""
        for (word, form), read in _READERS.items():
            if schema.get(word) == form:
                try:
                    read(data)
                except (ValueError, ArithmeticError):
                    return f"is {_shown(data)}{_at(path)}, and a text of the form {form} is expected"
        return _length(schema, "Length", len(data), "characters", path)

    def _array(self, schema: _Schema, data: list[object], path: str, is_lax: bool) -> Iterator[str]:
        yield _length(schema, "Items", len(data), "items", path)
        first = _listed(schema.get("prefixItems"))
        for index, (part, item) in enumerate(zip(first, data, strict=False)):
            yield self.why(part, item, f"{path}[{index}]", is_lax)
        for index in range(len(first), len(data) if "items" in schema else 0):
            yield self.why(schema["items"], data[index], f"{path}[{index}]", is_lax)
        if schema.get("uniqueItems") and not is_lax:
            texts = [json.dumps(item, sort_keys=True) for item in data]
            if len(set(texts)) < len(texts):
                yield f"has an item twice{_at(path)}"

    def _object(self, schema: _Schema, data: dict[str, object], path: str, is_lax: bool) -> Iterator[str]:
        for name in _listed(schema.get("required")):
            if type(name) is str and name not in data:
                yield f"lacks {f'{path}.{name}'.lstrip('.')!r}"
        known, names = _mapped(schema.get("properties")), schema.get("propertyNames")
        for name, value in data.items():
            if name in known:
                yield self.why(known[name], value, f"{path}.{name}", is_lax)
                continue
            if schema.get("additionalProperties") is False:
                yield f"has {name!r}{_at(path)}, which is not expected"
            yield self.why(schema.get("additionalProperties"), value, f"{path}.{name}", is_lax)
            if names is not None and (why := self.why(names, name, "", is_lax)):
                yield f"has the key {name!r}{_at(path)}, which {why}"


def _is_of(kind: str, data: object, is_lax: bool) -> bool:
    if is_lax and kind in ("integer", "number") and type(data) is str:
        return _is_numeric(data)
    if not isinstance(data, _KINDS.get(kind, object)) or (isinstance(data, bool) and kind != "boolean"):
        return False
    return kind != "integer" or type(data) is not float or (is_lax and data.is_integer())


def _is_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_same(value: object, data: object, is_lax: bool) -> bool:
    return value == data and (is_lax or type(value) is type(data))


def _number(schema: _Schema, data: Any, path: str, is_lax: bool) -> str:
    shown = f"is {_shown(data)}{_at(path)}"
    if not is_lax and schema.get("type") == "number" and not _is_float(data):
        return f"{shown}, and a number that a float can hold is expected"
    bounds: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
        ("minimum", ge, "at least"), ("maximum", le, "at most"),
        ("exclusiveMinimum", gt, "more than"), ("exclusiveMaximum", lt, "less than"),
    )  # fmt: skip
    for word, fits, what in bounds:
        bound: Any = schema.get(word)
        if type(bound) in (int, float) and not fits(data, bound):
            return f"{shown}, and {what} {bound} is expected"
    return ""


def _is_float(data: Any) -> bool:
    try:
        return isfinite(data) and float(data) == data
    except OverflowError:
        return False


def _length(schema: _Schema, what: str, length: int, unit: str, path: str) -> str:
    least, most = schema.get(f"min{what}"), schema.get(f"max{what}")
    if type(least) is int and length < least:
        return f"has {length} {unit}{_at(path)}, and at least {least} are expected"
    if type(most) is int and length > most:
        return f"has {length} {unit}{_at(path)}, and at most {most} are expected"
    return ""


def _listed(found: object) -> list[Any]:
    return found if type(found) is list else []


def _mapped(found: object) -> _Schema:
    return found if isinstance(found, Mapping) else {}


def _at(path: str) -> str:
    return f" at {path}" if path else ""


def _shown(data: object) -> str:
    text = json.dumps(data)
    return text if len(text) <= 100 else f"{text[:100]}..."
