"""The interface of JSON types: each turns values of one annotation into JSON data and back, and describes itself.

JSON data are what `json.loads` returns: None, bool, int, float, str, list, and dict with str keys.

The rule: a value is written as it is or refused, and never converted to make it fit. Errors name the place and the
types, and never the value. Only what the constructor of a class says itself is repeated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol

from dagorama.models.promise import DAGPromise
from dagorama.models.value_ref import ValueRef
from dagorama.values.json_types.misfit import Misfit, Unsupported, kind_of

#: Definitions of a JSON schema by name, and the shapes that have them.
Definitions = dict[str, Any]


class Hole(NamedTuple):
    """The place of a promise in JSON data that were read."""

    number: int  #: the index of the promise in the table of the envelope
    is_outcome: bool


class Holes(Protocol):
    """The promises among the values: they are numbered when values are written, and filled when they are read."""

    def mark(self, promise: DAGPromise[Any], shape: Shape) -> dict[str, int]:
        """Return the JSON data that stand for a promise in a place of a type. Raises Misfit if it can never fit."""
        ...

    def fill(self, hole: Hole, shape: Shape) -> Any:
        """Return the value for a hole, after it was checked against the type of its place."""
        ...


class Shape(ABC):
    """The JSON type of one annotation."""

    #: The Python types of its values, which tell the members of a union apart.
    types: frozenset[type] = frozenset()
    #: The JSON types of its data: null, boolean, integer, number, string, array, object.
    kinds: frozenset[str] = frozenset()
    #: Whether JSON data and values are the same objects, if the exact type is right.
    is_identity = False
    #: Whether `types` and `kinds` are all that its values and its data can be.
    is_closed = True

    def __init__(self, name: str) -> None:
        self.name = name  #: the annotation, for errors

    @abstractmethod
    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        """Return the JSON data of a value. Raises Misfit."""

    @abstractmethod
    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        """Return the value of JSON data. Raises Misfit."""

    def encode_key(self, value: Any) -> str:
        """Return the text of a value that is a key of an object. Raises Misfit."""
        text: str = self.encode(value)
        return text

    def decode_key(self, text: str) -> Any:
        """Return the value of a key of an object. Raises Misfit."""
        return self.decode(text)

    def check_as_key(self) -> None:
        """Raise Unsupported unless values can be keys of JSON objects."""
        raise Unsupported(f"{self.name} cannot be the type of keys: keys of JSON objects are texts")

    @abstractmethod
    def schema(self, definitions: Definitions) -> dict[str, Any]:
        """Return the JSON schema; schemas of records are added to `definitions`."""

    def can_hold(self, other: Shape) -> bool:
        """Return whether a value of another type may fit; False only if none does, as a value or as its JSON."""
        if not (self.is_closed and other.is_closed):
            return True
        return bool(self.kinds & other.kinds or self.types & other.types)

    def unfit(self, value: Any, holes: Holes | None) -> Any:
        """Return the mark of a promise, for a value of another type; raise Misfit for any other value."""
        if isinstance(value, DAGPromise):
            if holes is None:
                raise Misfit(f"is a promise here, and only arguments and results can hold one; {self.name} is expected")
            return holes.mark(value, self)
        if isinstance(value, ValueRef):
            raise Misfit("is a value stored with put(), which is a pickle: pass the value itself, of any size")
        raise Misfit(f"is of type {kind_of(value)}; {self.name} is expected")

    def unread(self, data: Any, holes: Holes | None) -> Any:
        """Return the value for a hole; raise Misfit for any other data."""
        if type(data) is Hole and holes is not None:
            return holes.fill(data, self)
        raise Misfit(f"is {json_kind(data)} in JSON; {self.name} is expected")


_KINDS = {
    type(None): "null", bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "an array",
    dict: "an object", Hole: "a promise",
}  # fmt: skip


def json_kind(data: object) -> str:
    """Return what JSON data are, for errors."""
    return _KINDS[type(data)]
