"""Values of one annotation as JSON: written, read, checked and described, without running code that data name.

    decision = json_type(Decision)
    data = decision.encode(Decision(yes=True))     # b'{"yes":true}'
    decision.decode(data)                          # Decision(yes=True), or TypeMismatch
    decision.schema()                              # a JSON schema, for a form or another program

The JSON of a type does not depend on which libraries are installed: plain types, dataclasses, TypedDicts, NamedTuples
and enums are converted here, and only classes of pydantic and msgspec by their own library.

The rule: what is read is what was written, with the same types; a value for which that is not so is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from dagorama.errors import TypeMismatch
from dagorama.values.json_types.annotations import Builder
from dagorama.values.json_types.misfit import Misfit, Unsupported
from dagorama.values.json_types.records import without_owners
from dagorama.values.json_types.shape import Holes, Shape


class TypedJson:
    """The JSON form of one annotation; `json_type` makes it."""

    __slots__ = ("_shape",)

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def __repr__(self) -> str:
        return f"<JSON of {self._shape.name}>"

    @property
    def shape(self) -> Shape:
        """The type itself, which reads and writes parts of values."""
        return self._shape

    def encode(self, value: object, what: str = "the value") -> bytes:
        """Return a value as JSON in UTF-8, without spaces. `what` names the value in errors.

        Raises TypeMismatch, which names the first part that does not fit.
        """
        return to_bytes(self.data(value, what), what)

    def decode(self, data: bytes, what: str = "the value") -> Any:
        """Return the value of JSON in UTF-8; raise TypeMismatch if it is not JSON, or not of this type."""
        return self.value(from_bytes(data, what), what)

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema (2020-12) of the type; records are in its `$defs`."""
        definitions: dict[str, Any] = {}
        found = self._shape.schema(definitions)
        definitions = without_owners(definitions)
        return {**found, "$defs": definitions} if definitions else found

    def data(self, value: object, what: str = "the value", holes: Holes | None = None) -> Any:
        """Return the JSON data of a value, as `json.loads` would; `holes` takes the promises."""
        return _converted(self._shape.encode, value, what, holes)

    def value(self, data: object, what: str = "the value", holes: Holes | None = None) -> Any:
        """Return the value of JSON data; `holes` has the values of promises."""
        return _converted(self._shape.decode, data, what, holes)


def json_type(annotation: Any, names: Mapping[str, Any] | None = None) -> TypedJson:
    """Return the JSON form of an annotation; `names` are local names in annotations of records that are texts.

    Raises TypeMismatch if not every value of that type can be written and read back.
    """
    builder = Builder(names)
    try:
        found = TypedJson(builder.shape(annotation))
        builder.finish()
    except (Unsupported, NameError) as error:
        raise TypeMismatch(f"{error}") from None
    return found


def _converted(convert: Callable[[Any, Any], Any], value: object, what: str, holes: Holes | None) -> Any:
    try:
        return convert(value, holes)
    except Misfit as misfit:
        raise TypeMismatch(misfit.sentence(what)) from None  # errors of libraries quote the value
    except RecursionError:
        raise TypeMismatch(f"{what} is nested too deeply for JSON, or contains itself") from None


# --- bytes ----------------------------------------------------------------------------------------------


def to_bytes(data: object, what: str = "the value") -> bytes:
    """Return JSON data in UTF-8. Raises TypeMismatch."""
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise TypeMismatch(f"{what} cannot be written as JSON ({type(error).__name__}: {error})") from None


def from_bytes(
    data: bytes | memoryview, what: str = "the value", pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Return the JSON data in bytes; `pairs` makes objects. Raises TypeMismatch if they are not JSON in UTF-8."""
    try:
        return read_json(str(data, "utf-8"), pairs)
    except (ValueError, RecursionError) as error:
        raise TypeMismatch(f"{what} is not JSON ({type(error).__name__}: {error})") from None


def read_json(text: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return the data in a JSON text; `pairs` makes objects.

    Raises ValueError if it is not JSON, such as NaN, or if an object has a key twice; RecursionError if it is nested
    too deeply.
    """
    return json.loads(text, parse_constant=_constant, object_pairs_hook=pairs or unique)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; raise ValueError if it has a key twice, of which readers would take different values."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
