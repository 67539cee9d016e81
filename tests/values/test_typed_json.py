"""Values of an annotation as JSON: what survives the round trip, what is refused, and with which words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from traceback import format_exception
from typing import (
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from pydantic import BaseModel

from dagorama.errors import TypeMismatch
from dagorama.values.typed_json import json_type

T = TypeVar("T")
UserId = NewType("UserId", int)


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Mode(Enum):
    OFF = 0
    NAMED = "named"


@dataclass
class Item:
    name: str
    price: float
    tags: set[str] = field(default_factory=set)
    color: Color = Color.RED


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    items: list[Item]
    note: str | None = None


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Cat:
    kind: Literal["cat"]
    name: str


@dataclass
class Dog:
    kind: Literal["dog"]
    name: str


class Point(NamedTuple):
    x: int
    y: int = 2


class Row(TypedDict, total=False):
    id: Required[int]
    text: str


class Line(TypedDict):
    id: int
    text: NotRequired[str]


#: Type, value, and the JSON of it.
SURVIVE: list[tuple[Any, object, str]] = [
    (None, None, "null"),
    (bool, True, "true"),
    (int, -(2**70), "-1180591620717411303424"),
    (float, 0.1, "0.1"),
    (float, -0.0, "-0.0"),
    (str, "ä\x1b\u2028", '"ä\\u001b\u2028"'),
    (bytes, b"\xff\xfe>>??", '"//4+Pj8/"'),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6, UTC), '"2026-01-02T03:04:05.000006Z"'),
    (datetime, datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1))), '"2026-01-02T00:00:00+01:00"'),
    (date, date(2026, 1, 2), '"2026-01-02"'),
    (time, time(1, 2, 3), '"01:02:03"'),
    (timedelta, timedelta(days=1, hours=2, microseconds=5), '"P1DT7200.000005S"'),
    (timedelta, -timedelta(seconds=1), '"-PT1S"'),
    (timedelta, timedelta(), '"PT0S"'),
    (UUID, UUID(int=5), '"00000000-0000-0000-0000-000000000005"'),
    (Decimal, Decimal("1.50"), '"1.50"'),
    (Decimal, Decimal("1E+3"), '"1E+3"'),
    (Color, Color.BLUE, '"blue"'),
    (Size, Size.LARGE, "2"),
    (Mode, Mode.OFF, "0"),
    (Literal["a", 1, None], 1, "1"),
    (Literal[Color.RED], Color.RED, '"red"'),
    (list[int], [1, 2], "[1,2]"),
    (Sequence[int], [1], "[1]"),
    (tuple[int, ...], (1, 2), "[1,2]"),
    (tuple[int, str], (1, "a"), '[1,"a"]'),
    (tuple[()], (), "[]"),
    (set[str], {"b", "a"}, '["a","b"]'),
    (frozenset[tuple[int, str]], frozenset({(2, "a"), (1, "b")}), '[[1,"b"],[2,"a"]]'),
    (dict[str, list[int]], {"a": [1]}, '{"a":[1]}'),
    (Mapping[int, str], {-1: "a"}, '{"-1":"a"}'),
    (dict[date, bool], {date(2026, 1, 2): True}, '{"2026-01-02":true}'),
    (dict[UUID, None], {UUID(int=1): None}, '{"00000000-0000-0000-0000-000000000001":null}'),
    (dict[Color, int], {Color.RED: 1}, '{"red":1}'),
    (Optional[int], None, "null"),  # noqa: UP045  # as users write it
    (Union[int, str], "1", '"1"'),  # noqa: UP007  # as users write it
    (int | float, 1.0, "1.0"),
    (int | float, 1, "1"),
    (list[int | str | None], [1, "a", None], '[1,"a",null]'),
    (Literal["a"] | Literal[1], "a", '"a"'),
    (Item, Item("x", 1.5, {"t"}), '{"name":"x","price":1.5,"tags":["t"],"color":"red"}'),
    (Order, Order(items=[]), '{"items":[],"note":null}'),
    (Tree, Tree(1, [Tree(2)]), '{"value":1,"children":[{"value":2,"children":[]}]}'),
    (Box[Box[int]], Box(Box(3)), '{"content":{"content":3}}'),
    (Cat | Dog, Dog("dog", "Rex"), '{"kind":"dog","name":"Rex"}'),
    (list[Item | Point | None], [Point(1), None], "[[1,2],null]"),
    (Point, Point(1, 3), "[1,3]"),
    (Row, {"id": 1}, '{"id":1}'),
    (Line, {"id": 1, "text": "a"}, '{"id":1,"text":"a"}'),
    (UserId, 5, "5"),
    (Any, {"a": [1, None, {"b": 1.5}]}, '{"a":[1,null,{"b":1.5}]}'),
    (dict, {"a": True}, '{"a":true}'),
    (list, ["a"], '["a"]'),
]


@pytest.mark.parametrize(("annotation", "value", "text"), SURVIVE, ids=range(len(SURVIVE)))
def test_a_value_survives_with_its_types(annotation: Any, value: object, text: str) -> None:
    form = json_type(annotation)
    data = form.encode(value)
    assert data.decode() == text
    again = form.decode(data)
    assert (again, type(again)) == (value, type(value))
    if not isinstance(value, (set, frozenset)):  # in any order
        assert repr(again) == repr(value)


def test_a_float_takes_an_integer_and_stays_a_float() -> None:
    form = json_type(float)
    assert form.encode(3) == b"3.0"
    assert (form.decode(b"3"), type(form.decode(b"3"))) == (3.0, float)


def test_a_zone_arrives_as_the_offset_of_the_same_moment() -> None:
    moment = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    form = json_type(datetime)
    assert form.encode(moment) == b'"2026-10-25T02:30:00+01:00"'
    assert form.decode(form.encode(moment)).utcoffset() == timedelta(hours=1)


def test_a_missing_field_takes_its_default() -> None:
    assert json_type(Item).decode(b'{"name":"x","price":1}') == Item("x", 1.0)
    assert json_type(Point).decode(b"[1]") == Point(1)


class Other:
    pass


#: Type, value, and how the refusal ends.
REFUSED: list[tuple[Any, object, str]] = [
    (int, True, "is of type bool; int is expected"),
    (int, "1", "is of type str; int is expected"),
    (int, Size.SMALL, "Size; int is expected"),
    (int, 10**4300, "Python does not convert to text"),
    (int, -(10**4300), "Python does not convert to text"),
    (float, float("nan"), "`float | None`"),
    (float, float("inf"), "`float | None`"),
    (float, 2**53 + 1, "float is expected"),
    (float, 10**400, "float is expected"),
    (str, b"a", "is of type bytes; str is expected"),
    (str, "\ud800", "pass bytes"),
    (str, Color.RED, "Color; str is expected"),
    (bytes, bytearray(b"a"), "is of type bytearray; bytes is expected"),
    (datetime, datetime(2026, 1, 2), "datetime.now(UTC)"),
    (date, datetime(2026, 1, 2, tzinfo=UTC), "is of type datetime.datetime; date is expected"),
    (datetime, datetime(2026, 1, 2, tzinfo=timezone(timedelta(seconds=1))), "ISO 8601 cannot express"),
    (time, time(1, tzinfo=ZoneInfo("Europe/Berlin")), "pass a datetime"),
    (Decimal, Decimal("NaN"), "is not a finite number"),
    (Decimal, 1.5, "is of type float; Decimal is expected"),
    (UUID, str(UUID(int=5)), "is of type str; UUID is expected"),
    (Color, "red", "is of type str; Color is expected"),
    (Literal["a"], "b", "is another value; Literal['a'] is expected"),
    (Literal[1], True, "is of type bool; Literal[1] is expected"),
    (list[int], (1,), "is of type tuple; list[int] is expected"),
    (tuple[int, ...], [1], "is of type list; tuple[int, ...] is expected"),
    (tuple[int, int], (1,), "has 1 members; tuple[int, int] is expected, with 2"),
    (list[Item], [Item("x", 1.0, {1})], "[0].tags, a member of it, is of type int; str is expected"),  # type: ignore[arg-type]
    (Item, Item("x", "y"), ".price is of type str; float is expected"),  # type: ignore[arg-type]
    (Order, Order(items=[Item("x", 1.0, color="red")]), ".items[0].color is of type str; Color is expected"),  # type: ignore[arg-type]
    (dict[str, int], {1: 1}, ", its key 1, is of type int; str is expected"),
    (dict[str, int], {"a": None}, "['a'] is of type NoneType; int is expected"),
    (Row, {"text": "a"}, "has no 'id'; Row is expected"),
    (Row, {"id": 1, "more": 2}, "has the key 'more', which Row does not have"),
    (Point, (1, 2), "is of type tuple; Point is expected"),
    (int | str, 1.5, "is of type float; int | str is expected"),
    (Cat | Dog, Item("x", 1.0), "Cat | tests.values.test_typed_json.Dog is expected"),
    (Any, {"a": (1,)}, "['a'] is of type tuple; JSON data is expected"),
    (Any, {1: 2}, "str is expected"),
    (Any, Other(), "Other; JSON data is expected"),
]


@pytest.mark.parametrize(("annotation", "value", "end"), REFUSED, ids=range(len(REFUSED)))
def test_a_value_that_does_not_fit_is_refused_with_its_place(annotation: Any, value: object, end: str) -> None:
    with pytest.raises(TypeMismatch) as refusal:
        json_type(annotation).encode(value, "argument 'x'")
    assert str(refusal.value).startswith("argument 'x'")
    assert str(refusal.value).endswith(end)


def test_a_refusal_does_not_quote_the_value() -> None:
    with pytest.raises(TypeMismatch) as refusal:
        json_type(dict[str, int]).encode({"password": "secret"})
    assert "secret" not in str(refusal.value)


def test_the_traceback_of_a_refusal_does_not_quote_the_value_either() -> None:
    class Login(BaseModel):
        attempts: int

    given = b'[{"attempts":"secret"}]'  # not in a line of the traceback
    with pytest.raises(TypeMismatch) as refusal:
        json_type(list[Login]).decode(given)
    assert "secret" not in "".join(format_exception(refusal.value))


def test_an_integer_has_as_many_digits_as_python_writes() -> None:
    for number in (10**4300 - 1, -(10**4300) + 1, 2**14_001):
        assert json_type(int).decode(json_type(int).encode(number)) == number


@dataclass
class Computed:
    value: int
    double: int = field(init=False, default=0)


@dataclass
class Titled(dict[str, int]):
    title: str = ""


@dataclass
class Passing:
    value: InitVar[int]


class Access(Flag):
    READ = auto()


class Mixed(Enum):
    A = (1, 2)


#: Annotations for which not every value can be written and read back, and a part of the refusal.
NO_FORM: list[tuple[Any, str]] = [
    (complex, "complex has no JSON form"),
    (Other, "Other has no JSON form: pass the plain data"),
    (Callable[[int], int], "has no JSON form"),
    (dict[tuple[int, int], str], "tuple[int, int] cannot be the type of keys"),
    (dict[float, str], "float cannot be the type of keys"),
    (dict[bool, str], "bool cannot be the type of keys"),
    (str | UUID, "cannot be told apart in JSON"),
    (str | Color, "cannot be told apart in JSON"),
    (list[int] | tuple[int, ...], "cannot be told apart in JSON"),
    (Item | dict[str, int], "cannot be told apart in JSON"),
    (Row | Line, "cannot be told apart in JSON"),
    (int | Any, "use one of both"),
    (Access, "pass a set of members"),
    (Mixed, "must be texts or integers"),
    (Computed, "Computed.double is no argument of the constructor"),
    (Passing, "Passing.value is an InitVar"),
    (Titled, "Titled extends dict, whose content is in none of its fields"),
    (T, "T has no JSON form"),
    (3, "3 has no JSON form"),
]


@pytest.mark.parametrize(("annotation", "words"), NO_FORM, ids=range(len(NO_FORM)))
def test_an_annotation_without_a_faithful_form_is_refused(annotation: Any, words: str) -> None:
    with pytest.raises(TypeMismatch) as refusal:
        json_type(annotation)
    assert words in str(refusal.value)


_CAT_OR_DOG = "tests.values.test_typed_json.Cat | tests.values.test_typed_json.Dog"
#: Type, JSON from elsewhere, and how the refusal ends.
UNREADABLE: list[tuple[Any, str, str]] = [
    (int, "1.0", "is a number in JSON; int is expected"),
    (int, "true", "is a boolean in JSON; int is expected"),
    (int, "NaN", "NaN is not JSON)"),
    (float, "1e400", "`float | None`"),
    (str, "null", "is null in JSON; str is expected"),
    (bytes, '"a"', "is a string of another form; bytes is expected"),
    (datetime, '"2026-01-02T03:04:05"', "is a string of another form; datetime is expected"),
    (datetime, '"2026-01-02T03:04:05.1234567Z"', "is a string of another form; datetime is expected"),
    (timedelta, '"P1Y"', "is a string of another form; timedelta is expected"),
    (timedelta, '"PT"', "is a string of another form; timedelta is expected"),
    (UUID, '"{00000000-0000-0000-0000-000000000005}"', "is a string of another form; UUID is expected"),
    (Decimal, '"Infinity"', "is a string of another form; Decimal is expected"),
    (Decimal, "1.5", "is a number in JSON; Decimal is expected"),
    (Item, '{"name":"x"}', "has no 'price'; Item is expected"),
    (Item, '{"name":"x","price":1,"more":1}', "has 'more', which Item does not have"),
    (Item, '{"name":"x","name":"y","price":1}', "an object has a key twice)"),
    (list[Item], '[{"name":"x","price":"1"}]', "[0].price is a string in JSON; float is expected"),
    (set[int], "[1,1]", "has a member twice; set[int] is expected"),
    (dict[int, int], '{"01":1}', ", its key '01', is no integer; int is expected"),
    (
        Cat | Dog,
        '{"kind":"cow","name":"x"}',
        f"is an object in JSON whose fields fit none of the types; {_CAT_OR_DOG} is expected",
    ),
    (int | str | None, "1.5", "is a number in JSON; int | str | None is expected"),
    (Cat | None, '"x"', "is a string in JSON; tests.values.test_typed_json.Cat | None is expected"),
    (Point, "[1,2,3]", "has 3 members; Point is expected, with 2"),
    (str, '"a', "Unterminated string starting at: line 1 column 1 (char 0))"),
    (list, "[" * 100_000, "decoding a JSON array from a unicode string)"),
]


@pytest.mark.parametrize(("annotation", "text", "end"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_json_that_does_not_fit_is_refused(annotation: Any, text: str, end: str) -> None:
    with pytest.raises(TypeMismatch) as refusal:
        json_type(annotation).decode(text.encode())
    assert str(refusal.value).endswith(end)


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    with pytest.raises(TypeMismatch, match="is not JSON"):
        json_type(str).decode(b'"\xff"')


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(TypeMismatch, match="contains itself"):
        json_type(Any).encode(value)


_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
_DATA = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(some.characters(exclude_categories=["Cs"])),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(some.characters(exclude_categories=["Cs"])), inner),
)  # fmt: skip


@_PATIENT
@given(_DATA)
def test_any_json_data_survive(value: object) -> None:
    form = json_type(Any)
    assert repr(form.decode(form.encode(value))) == repr(value)


@_PATIENT
@given(some.timedeltas(), some.decimals(allow_nan=False, allow_infinity=False), some.binary())
def test_durations_decimals_and_bytes_survive(duration: timedelta, number: Decimal, data: bytes) -> None:
    form = json_type(tuple[timedelta, Decimal, bytes])
    assert repr(form.decode(form.encode((duration, number, data)))) == repr((duration, number, data))


# --- schemas --------------------------------------------------------------------------------------------


def test_a_schema_describes_a_form() -> None:
    assert json_type(Order).schema() == {
        "$ref": "#/$defs/Order",
        "$defs": {
            "Order": {
                "type": "object", "title": "Order", "required": ["items"], "additionalProperties": False,
                "properties": {
                    "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                },
            },
            "Item": {
                "type": "object", "title": "Item", "required": ["name", "price"], "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"}, "price": {"type": "number"},
                    "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
                    "color": {"enum": ["red", "blue"], "default": "red"},
                },
            },
        },
    }  # fmt: skip


def test_a_record_that_contains_itself_has_a_schema() -> None:
    schema = json_type(list[Tree]).schema()
    assert schema["items"] == {"$ref": "#/$defs/Tree"}
    assert schema["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


def test_two_records_of_one_name_have_two_schemas() -> None:
    assert sorted(json_type(tuple[Box[int], Box[str]]).schema()["$defs"]) == ["Box", "Box2"]


@pytest.mark.parametrize("annotation", [row[0] for row in SURVIVE], ids=range(len(SURVIVE)))
def test_each_type_has_a_schema_that_is_json(annotation: Any) -> None:
    assert isinstance(json.dumps(json_type(annotation).schema()), str)
