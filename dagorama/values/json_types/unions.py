"""JSON types of unions: the Python type of a value picks the member that writes it, and its JSON the one that reads it.

The rule: a union whose members could be mistaken for each other is refused when the function is decorated.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from dagorama.values.json_types.choices import Choice
from dagorama.values.json_types.containers import Anything
from dagorama.values.json_types.misfit import Misfit, Unsupported, kind_of
from dagorama.values.json_types.records import Record
from dagorama.values.json_types.scalars import Float
from dagorama.values.json_types.shape import Definitions, Hole, Holes, Shape, json_kind

_KIND = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


class Union(Shape):
    """One of several types."""

    def __init__(self, name: str, members: list[Shape]) -> None:
        """Take members that `check_members` has not refused."""
        super().__init__(name)
        self._members = members
        self.types = frozenset().union(*(member.types for member in members))
        self.kinds = frozenset().union(*(member.kinds for member in members))
        self.is_closed = all(member.is_closed for member in members)
        self._by_type: dict[type, list[Shape]] = {}
        self._by_kind: dict[str, list[Shape]] = {}
        # An int is of a member for int, if there is one, and of float otherwise.
        for member in sorted(members, key=lambda member: isinstance(member, Float)):
            for kind in member.types:
                self._by_type.setdefault(kind, []).append(member)
            for name in member.kinds:
                self._by_kind.setdefault(name, []).append(member)

    def encode(self, value: Any, holes: Holes | None = None) -> Any:
        members = self._by_type.get(type(value))
        if members is None:
            return self.unfit(value, holes)
        return self._first([member for member in members if _may_write(member, value)], "encode", value, holes)

    def decode(self, data: Any, holes: Holes | None = None) -> Any:
        if type(data) is Hole:
            return self.unread(data, holes)
        members = self._by_kind.get(_KIND[type(data)], [])
        return self._first([member for member in members if _may_read(member, data)], "decode", data, holes)

    def _first(self, members: list[Shape], how: str, value: Any, holes: Holes | None) -> Any:
        """Convert by the only member, or by the first that allows the value."""
        for member in members[:-1]:
            try:
                return getattr(member, how)(value, holes)
            except Misfit:
                continue
        if not members:
            found = f"{json_kind(value)} in JSON" if how == "decode" else f"of type {kind_of(value)}"
            which = " whose fields fit none of the types" if isinstance(value, dict) else ""
            raise Misfit(f"is {found}{which}; {self.name} is expected")
        return getattr(members[-1], how)(value, holes)

    def schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"anyOf": [member.schema(definitions) for member in self._members]}


def _may_write(member: Shape, value: Any) -> bool:
    return not (isinstance(member, Record) and type(value) is dict) or member.may_be(value)


def _may_read(member: Shape, data: Any) -> bool:
    return not isinstance(member, Record) or member.may_be(data)


def check_members(name: str, members: list[Shape]) -> None:
    """Raise Unsupported if the JSON of two members cannot be told apart. Records must have their fields."""
    for one, other in combinations(members, 2):
        if isinstance(one, Anything) or isinstance(other, Anything):
            raise Unsupported(f"{name} holds any JSON data besides other types: use one of both")
        if _can_be_told_apart(one, other):
            continue
        raise Unsupported(
            f"the types {one.name} and {other.name} of {name} cannot be told apart in JSON: give them different "
            "fields, or a field such as `kind: Literal[...]` with another value in each"
        )


def _can_be_told_apart(one: Shape, other: Shape) -> bool:
    shared = one.kinds & other.kinds
    if {type(one), type(other)} & {Float}:
        shared -= {"integer"}
    if not shared:
        return True
    if isinstance(one, Choice) and isinstance(other, Choice):
        return not one.values.keys() & other.values.keys()
    if not isinstance(one, Record) or not isinstance(other, Record):
        return False
    if not one.required <= other.fields.keys() or not other.required <= one.fields.keys():
        return True
    ours, theirs = one.tags(), other.tags()
    return any(not values & theirs[field] for field, values in ours.items() if field in theirs)
