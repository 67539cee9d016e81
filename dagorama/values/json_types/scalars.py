"""JSON types of None, booleans, numbers and texts."""

from __future__ import annotations

from math import isfinite
from types import NoneType
from typing import Any

from dagorama.api.text_forms import TOO_LONG, read_integer
from dagorama.values.json_types.misfit import Misfit
from dagorama.values.json_types.shape import Definitions, Holes, Shape
from dagorama.values.json_types.texts import texts


class Plain(Shape):
    """None, bool or int: JSON has them."""

    is_identity = True

    def __init__(self, kind: type[Any], json: str) -> None:
        super().__init__("None" if kind is NoneType else kind.__name__)
        self._kind = kind
        self.types = frozenset({kind})
        self.kinds = frozenset({json})
        self._schema = {"type": json}

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        if type(value) is not self._kind:
            return self.unfit(value, holes)
        if self._kind is int and not -TOO_LONG < value < TOO_LONG:
            raise Misfit("is an int of more than 4,300 digits, which Python does not convert to text")
        return value

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        return data if type(data) is self._kind else self.unread(data, holes)

    def check_as_key(self) -> None:
        if self._kind is not int:
            super().check_as_key()

    def encode_key(self, value: Any) -> str:
        return str(self.encode(value))

    def decode_key(self, text: str) -> Any:
        try:
            return read_integer(text)
        except ValueError:
            raise Misfit("is no integer; int is expected") from None

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return dict(self._schema)


class Float(Shape):
    """A finite number. An int is taken as the float of the same value."""

    types = frozenset({float, int})
    kinds = frozenset({"number", "integer"})

    def __init__(self) -> None:
        super().__init__("float")

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        if type(value) is int:
            return self._of_int(value)
        if type(value) is not float:
            return self.unfit(value, holes)
        if not isfinite(value):
            raise Misfit("is not a finite number, and JSON has no other: pass None, with the type `float | None`")
        return value

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        if type(data) is float:
            return self.encode(data)  # 1e400 is read as infinity
        return self._of_int(data) if type(data) is int else self.unread(data, holes)

    def _of_int(self, value: int) -> float:
        try:
            number = float(value)
        except OverflowError:
            number = 0.0
        if number != value:
            raise Misfit("is an int that no float has the value of; float is expected")
        return number

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"type": "number"}


class Text(Shape):
    """A text of Unicode characters."""

    types = frozenset({str})
    kinds = frozenset({"string"})

    def __init__(self) -> None:
        super().__init__("str")

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        if type(value) is not str:
            return self.unfit(value, holes)
        if not value.isascii():
            check_text(value)
        return value

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        return data if type(data) is str else self.unread(data, holes)

    def check_as_key(self) -> None:
        return

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"type": "string"}


def check_text(text: str) -> None:
    """Raise Misfit for a text with half of a surrogate pair, which JSON in UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Misfit("is a str with a lone surrogate, which UTF-8 cannot hold: pass bytes") from None


def scalars() -> dict[object, Shape]:
    """Return the JSON types of single values by their Python types."""
    found = texts()
    found |= {bool: Plain(bool, "boolean"), int: Plain(int, "integer"), float: Float(), str: Text()}
    found |= {None: (none := Plain(NoneType, "null")), NoneType: none}
    return found
