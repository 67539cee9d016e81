"""JSON types of classes of pydantic and msgspec, which their own library writes, reads and describes.

Neither library is imported before a class of it, or a constraint, is met.

The rule: what the library has written is read back and compared. A model whose settings lose something is refused when
it is sent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from typing import Any, NamedTuple

from dagorama.api.text_forms import READ_BY_LIBRARY
from dagorama.values.json_types.misfit import Misfit, Unsupported
from dagorama.values.json_types.records import defined
from dagorama.values.json_types.shape import Definitions, Holes, Shape


class Library(NamedTuple):
    """How a library converts the values of one class."""

    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]
    schema: Callable[[], dict[str, Any]]


class Foreign(Shape):
    """A class of pydantic or msgspec."""

    is_closed = False  # a class can write itself as any JSON

    def __init__(self, kind: type, library: Library) -> None:
        super().__init__(kind.__qualname__)
        self._kind, self._library = kind, library
        own_eq: object = kind.__eq__
        self._compares = own_eq is not object.__eq__
        self.types = frozenset({kind})
        self.kinds = frozenset({"array" if getattr(_struct_config(kind), "array_like", False) else "object"})

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        if type(value) is not self._kind:
            return self.unfit(value, holes)
        try:
            data = self._library.write(value)
            again = self._library.read(data)
            is_same = self._library.write(again) == data and (not self._compares or again == value)
        except Exception as error:
            raise Misfit(f"cannot be written as {self.name} ({_reason(error)})") from error
        if not is_same:
            raise Misfit(f"is not the same {self.name} after it was written and read: JSON loses a part of it")
        return json.loads(data)

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        if type(data) not in (dict, list):
            return self.unread(data, holes)
        try:
            return self._library.read(json.dumps(data).encode())
        except Exception as error:
            raise Misfit(f"is not a {self.name} ({_reason(error)})") from error

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return defined(self, self._kind.__name__, definitions, self._schema)

    def _schema(self, definitions: Definitions) -> dict[str, Any]:
        """Return the library's schema; the ones that it refers to are added, under other names if theirs are taken."""
        found = self._library.schema()
        inner = found.pop("$defs", {})
        own = found.get("$ref", "").rpartition("/")[2]
        text = json.dumps({"": inner.get(own, found), **inner})
        for name in [each for each in inner if definitions.get(each, inner[each]) != inner[each]]:
            others = (f"{name}{number}" for number in range(2, len(definitions) + 3))
            other = next(each for each in others if each not in definitions and each not in inner)
            text = text.replace(f'"#/$defs/{name}"', f'"#/$defs/{other}"').replace(f'"{name}": ', f'"{other}": ', 1)
        renamed: dict[str, Any] = json.loads(text)
        whole: dict[str, Any] = renamed.pop("")
        definitions.update(renamed)
        return {**whole, "$comment": READ_BY_LIBRARY}


def _reason(error: Exception) -> str:
    """Return what is wrong and where, without the values that errors of pydantic quote."""
    listed: Any = getattr(error, "errors", None)
    if listed is not None and type(error).__module__.startswith("pydantic"):
        first: Any = next(iter(listed(include_url=False, include_input=False, include_context=False)))
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    if type(error).__module__.startswith("msgspec"):
        return str(error)
    return "a part of it has another type than its field"  # the text of such an error quotes the part


def foreign_shape(kind: type) -> Shape | None:
    """Return the JSON type of a class of pydantic or msgspec; None for other classes."""
    pydantic, msgspec = sys.modules.get("pydantic"), sys.modules.get("msgspec")
    is_model = pydantic is not None and issubclass(kind, pydantic.BaseModel)
    if is_model or (is_dataclass(kind) and hasattr(kind, "__pydantic_core_schema__")):
        return Foreign(kind, _by_pydantic(kind))
    if msgspec and issubclass(kind, msgspec.Struct):
        return Foreign(kind, _by_msgspec(kind))
    return None


def _by_pydantic(kind: type) -> Library:
    from pydantic import TypeAdapter

    adapter: Any = TypeAdapter(kind)
    return Library(
        lambda value: bytes(adapter.dump_json(value, by_alias=True, warnings="error")),
        lambda data: adapter.validate_json(data, by_alias=True),
        lambda: dict(adapter.json_schema(by_alias=True, ref_template="#/$defs/{model}")),
    )


def _by_msgspec(kind: type) -> Library:
    import msgspec

    decoder: Any = msgspec.json.Decoder(kind)

    def schema() -> dict[str, Any]:
        (found,), inner = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
        return {**found, "$defs": inner}

    return Library(msgspec.json.encode, decoder.decode, schema)


def _struct_config(kind: type) -> object:
    return getattr(kind, "__struct_config__", None)


# --- constraints -----------------------------------------------------------------------------------------


class Constrained(Shape):
    """A type with constraints of pydantic, annotated-types or msgspec, such as `Annotated[int, Field(gt=0)]`."""

    def __init__(self, base: Shape, check: Callable[[Any], None], schema: Callable[[], dict[str, Any]]) -> None:
        """`check` raises Misfit; `schema` returns the JSON schema of the type as its library describes it."""
        super().__init__(base.name)
        self._base, self._check, self._described = base, check, schema
        self.types, self.kinds, self.is_closed = base.types, base.kinds, base.is_closed

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        data = self._base.encode(value, holes)
        if type(value) in self.types:
            self._check(value)
        return data

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        value = self._base.decode(data, holes)
        self._check(value)
        return value

    def check_as_key(self) -> None:
        self._base.check_as_key()

    def encode_key(self, value: Any) -> str:
        self._check(value)
        return self._base.encode_key(value)

    def decode_key(self, text: str) -> Any:
        value = self._base.decode_key(text)
        self._check(value)
        return value

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        """Return the schema of the type with the constraints that the schema of the library has too."""
        found = self._base.schema(definitions)
        try:
            described = self._described()
        except Exception:  # the library cannot describe it, and the values are checked all the same
            return found
        if found.get("type") != described.get("type"):
            return found
        return {**{word: described[word] for word in _CONSTRAINTS if word in described}, **found}


#: The words of a JSON schema for constraints.
_CONSTRAINTS = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems",
)  # fmt: skip


def constrained(base: Shape, annotation: Any) -> Shape:
    """Return the JSON type of an Annotated type. Raises Unsupported for a constraint that nothing here can check."""
    origins = {type(each).__module__.partition(".")[0] for each in annotation.__metadata__}
    if "msgspec" in origins:
        return Constrained(base, _msgspec_check(annotation), partial(_msgspec_schema, annotation))
    if not origins & {"pydantic", "annotated_types"}:
        return base
    if "pydantic" not in sys.modules and not _can_import_pydantic():
        raise Unsupported(f"{annotation} has constraints that only pydantic can check: install pydantic")
    return Constrained(base, _pydantic_check(annotation), partial(_pydantic_schema, annotation))


def _can_import_pydantic() -> bool:
    from importlib.util import find_spec

    return find_spec("pydantic") is not None


def _pydantic_schema(annotation: Any) -> dict[str, Any]:
    from pydantic import TypeAdapter

    return dict(TypeAdapter(annotation).json_schema())


def _msgspec_schema(annotation: Any) -> dict[str, Any]:
    import msgspec

    return msgspec.json.schema(annotation)


def _pydantic_check(annotation: Any) -> Callable[[Any], None]:
    from pydantic import TypeAdapter

    adapter: Any = TypeAdapter(annotation)

    def check(value: Any) -> None:
        try:
            found = adapter.validate_python(value, strict=True)
        except Exception as error:
            raise Misfit(f"does not fit ({_reason(error)})") from error
        if type(found) is not type(value) or found != value:
            raise Misfit("is changed by a validator of its type: send the value that the validator returns")

    return check


def _msgspec_check(annotation: Any) -> Callable[[Any], None]:
    import msgspec

    def check(value: Any) -> None:
        try:
            msgspec.convert(value, annotation, strict=True)
        except msgspec.ValidationError as error:
            raise Misfit(f"does not fit ({error})") from error

    return check
