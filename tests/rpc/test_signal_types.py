"""The broker refuses what plainly does not fit, and nothing that the worker which reads the signal would take."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import annotated_types
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagorama.errors import TypeMismatch
from dagorama.values.typed_json import json_type
from dagorama_broker.model.signal_types import misfit


@dataclass
class Decision:
    yes: bool
    note: str = ""


@dataclass
class Tree:
    number: int
    children: list[Tree]


@dataclass
class Cat:
    kind: Literal["cat"]
    lives: int


@dataclass
class Dog:
    kind: Literal["dog"]
    name: str


class Fields(TypedDict):
    one: int
    other: dict[str, float]


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Model(pydantic.BaseModel):
    number: int
    name: str = ""
    inner: Decision | None = None


class Struct(msgspec.Struct):
    number: int
    names: list[str] = []


TYPES: list[Any] = [
    None, bool, int, float, str, bytes, Decimal, UUID, date, datetime, time, timedelta, Any, Color, Level,
    Literal[1, 2], Literal["a", None], Decision, Tree, Fields, Point, Decision | None, Decision | int, Cat | Dog,
    int | str | None, list[int], list[Decision], tuple[int, str], tuple[int, ...], set[int], frozenset[str],
    dict[str, int], dict[int, Decision], dict[date, int], dict[Color, float], list[list[int] | None],
    Annotated[int, pydantic.Field(gt=0, le=10)], Annotated[str, annotated_types.Len(2, 3)],
    Annotated[list[int], pydantic.Field(min_length=1)], Annotated[float, msgspec.Meta(ge=0.5)], Model, Struct,
    list[Model], Model | None,
]  # fmt: skip
DEEP = {"number": 1, "children": [{"number": 2, "children": [{"number": "3", "children": []}]}]}
DATA: list[Any] = [
    None, True, False, 0, 1, 2, -5, 11, 1.0, 1.5, 0.25, 1e300, 2**53 + 1, 10**400, "", "a", "abcd", "red", "5", "1.5",
    "nonsense", "***", "YWJj", "1e5", "2024-02-30", "2024-02-29", "2024-02-29T10:00:00Z", "2024-02-29T25:00:00Z",
    "10:00:00", "PT5S", "P", "b7e2d9f0-8a3c-4a38-9d2e-0f6f2b0c8f11", [], [1], [1, 1], [True, 1], [1, "a"], [1, 2], [5],
    ["a"], [None], [[1], None], [[1.5]], [{"yes": True}], [{"number": 1}], {}, {"a": 1}, {"a": "b"}, {"1": 1},
    {"1": {"yes": True}}, {"-0": {"yes": True}}, {"red": 1.5}, {"2024-02-29": 1}, {"2024-02-30": 1}, {"yes": True},
    {"yes": 1}, {"yes": True, "note": None}, {"yes": True, "more": 1}, {"note": "a"}, {"number": 1, "children": []},
    DEEP,
    {"kind": "cat", "lives": 9}, {"kind": "dog", "lives": 9}, {"kind": "cow"}, {"one": 1, "other": {"a": 1.5}},
    {"one": 1, "other": {"a": "b"}}, {"number": "1"}, {"number": 1.0}, {"number": 1, "name": "a"},
    {"number": 1, "inner": {"yes": True}}, {"number": 1, "inner": {"no": True}}, {"number": 1, "names": [1]},
]  # fmt: skip


def fits(annotation: Any, data: object) -> bool:
    """Return whether the worker takes data for a value of a type."""
    try:
        json_type(annotation).decode(json.dumps(data).encode())
    except TypeMismatch:
        return False
    return True


def why(annotation: Any, data: object) -> str:
    return misfit(json.dumps(json_type(annotation).schema()).encode(), data)


@pytest.mark.parametrize("annotation", TYPES, ids=str)
def test_nothing_is_refused_that_the_worker_takes(annotation: Any) -> None:
    assert [(data, why(annotation, data)) for data in DATA if why(annotation, data) and fits(annotation, data)] == []


@pytest.mark.parametrize("annotation", [kind for kind in TYPES if kind not in (Model, Struct, list[Model])], ids=str)
def test_of_plain_types_all_is_refused_that_the_worker_refuses(annotation: Any) -> None:
    assert [data for data in DATA if not fits(annotation, data) and not why(annotation, data)] == []


@pytest.mark.parametrize(
    ("annotation", "data", "expected"),
    [
        (Decision | None, "nonsense", 'is "nonsense", which fits no type of a union'),
        (Decision | None, {"no": True}, "lacks 'yes'"),
        (int, 1.5, "is 1.5, and a JSON integer is expected"),
        (Literal[1, 2], True, "is true, and one of [1, 2] is expected"),
        (list[Decision], [{"yes": True}, 5], "is 5 at [1], and a JSON object is expected"),
        (tuple[int, str], [1], "has 1 items, and at least 2 are expected"),
        (tuple[int, str], [1, "a", 2], "has 2 at [2], which is not expected"),
        (dict[str, int], {"a": "b"}, 'is "b" at .a, and a JSON integer is expected'),
        (datetime, "yesterday", 'is "yesterday", and a text of the form date-time is expected'),
        (Annotated[int, pydantic.Field(gt=0)], -5, "is -5, and more than 0 is expected"),
        (Tree, DEEP, 'is "3" at .children[0].children[0].number, and a JSON integer is expected'),
    ],
    ids=str,
)
def test_the_reason_names_the_place(annotation: Any, data: object, expected: str) -> None:
    assert why(annotation, data) == expected


def test_a_schema_without_an_end_refuses_nothing() -> None:
    twice = {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}]}
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "array", "items": twice}}}
    data: object = 5
    for _ in range(90):
        data = [data]
    assert misfit(json.dumps(schema).encode(), data) == ""
    assert misfit(b'{"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}', 5) == ""


WORDS = [
    "$comment", "$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "contentEncoding", "enum",
    "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maxLength", "maximum", "minItems",
    "minLength", "minimum", "oneOf", "pattern", "prefixItems", "properties", "propertyNames", "required", "type",
    "uniqueItems",
]  # fmt: skip
NAMES = st.sampled_from([*WORDS, "a", "#/$defs/a", "array", "object", "string", "integer", "number", "date", "base64"])
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), NAMES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(WORDS), JSON, max_size=6), JSON)
def test_any_json_can_be_the_schema(schema: object, data: object) -> None:
    """It comes from a caller, and an exception would end the broker."""
    misfit(json.dumps(schema).encode(), data)


@pytest.mark.parametrize(
    "schema",
    [
        b"", b"not JSON", b"5", b"[" * 60_000, b'{"type": 5, "enum": 5, "required": 5, "anyOf": {}}',
        b'{"$comment": 5, "properties": 5}', b'{"$ref": "#/$defs/A", "$defs": 5}', b'{"$ref": null}',
        b'{"required": [["a"]], "properties": null, "propertyNames": 5, "additionalProperties": 5}',
    ],
    ids=lambda schema: f"{schema[:20]}",
)  # fmt: skip
def test_a_schema_that_cannot_be_read_refuses_nothing(schema: bytes) -> None:
    assert misfit(schema, {"a": 1}) == ""
