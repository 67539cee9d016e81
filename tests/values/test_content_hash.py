"""Hashes of content: equal in all processes for equal values, different for different ones, refused for the rest."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr

from dagorama.errors import UncacheableArgument
from dagorama.values.content_hash import DEPTH, content_hash


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Order:
    number: int
    lines: list[str]


@attrs.define
class Parcel:
    weight: float


class Point(NamedTuple):
    x: int
    y: int


class Model(BaseModel):
    name: str
    tags: set[str] = set()


class Row(msgspec.Struct):
    id: int


class Permission(Flag):
    READ = 1
    WRITE = 2


class Other(Enum):
    RED = 1


@dataclass
class Late:
    number: int
    lines: list[str] = field(init=False)


@dataclass
class Titled(dict[str, int]):
    title: str = ""


@attrs.define(slots=False, init=False, order=False)
class Stack(list[int]):
    title: str = ""


@dataclass(init=False)
class Recent(deque[int]):
    title: str = ""


@dataclass(init=False)
class Amount(int):
    unit: str = ""


class Tracked(Order):
    def __init__(self, number: int, lines: list[str], source: str = "") -> None:
        super().__init__(number, lines)
        self.source = source


class Marked(Point):
    mark: str


class Slot(Order):
    __slots__ = ("source",)
    source: str


class Noted(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str = ""
    _notes: list[str] = PrivateAttr(default_factory=list)


class Loose(msgspec.Struct, dict=True):
    id: int


class Array(np.ndarray[Any, Any]):
    """An array that may hold more than an array."""


class Zone(tzinfo):
    """A time zone that nothing tells apart from others."""

    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(hours=1)

    dst = tzname = lambda *_: None


@dataclass(frozen=True)
class Broken:
    number: int

    @property
    def __dict__(self) -> Any:  # type: ignore[override]  # a class that cannot be read
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise ZeroDivisionError


@dataclass
class Filed(BytesIO):
    number: int


class Elsewhere(PurePosixPath):
    """A path that may hold more than its text."""


@dataclass
class Rejected(ValueError):
    code: int


@dataclass
class Missing(OSError):
    code: int


def filled(value: Any, **attributes: object) -> Any:
    """Return the value with its items or attributes changed."""
    for name, part in attributes.items():
        setattr(value, name, part)
    return value


def with_items(value: Any, items: Any) -> Any:
    (value.update if isinstance(value, dict) else value.extend)(items)
    return value


def masked(mask: Any, **options: Any) -> Any:
    return np.ma.MaskedArray([1, 2], mask, **options)


def padded(padding: int) -> Any:
    """Return an array of which the bytes between the fields are all `padding`."""
    kind = np.dtype([("a", "i1"), ("b", [("c", "i1"), ("d", "f8")]), ("e", "M8[s]")], align=True)
    array = np.frombuffer(bytes([padding]) * kind.itemsize * 2, kind).copy()
    array["a"], array["b"]["c"], array["b"]["d"], array["e"] = 1, 2, 3.0, np.datetime64("2026-01-01", "s")
    return array


def long_doubles(padding: int) -> Any:
    """Return numbers of 80 bits, the rest of whose bytes is `padding`."""
    array = np.array([1, 2], np.longdouble)
    if np.finfo(np.longdouble).nmant == 63:
        array.view(np.uint8).reshape(2, -1)[:, 10:] = padding
    return array


def hashed(value: object) -> bytes:
    return content_hash(value, "it")


EQUAL = [
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({"x", "yy", "zzz"}, {"zzz", "yy", "x"}),
    (Order(1, ["a"]), Order(1, ["a"])),
    (Model(name="n", tags={"a", "b"}), Model(name="n", tags={"b", "a"})),
    (np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3).copy(order="F")),
    (np.arange(10)[::2], np.array([0, 2, 4, 6, 8])),
    ("".join(["a", "b"]), "ab"),
    (masked([False, False]), masked(np.ma.nomask)),
    (padded(0), padded(255)),
    (long_doubles(0), long_doubles(255)),
    (np.array(["2026-01-01", "NaT"], "M8[D]"), np.array(["2026-01-01", "NaT"], "M8[D]")),
    (np.timedelta64(1, "s"), np.timedelta64(1, "s")),
    ([10**5000], [10**5000]),
    (Late(1), Late(1)),
    (Permission(0), Permission.READ & Permission.WRITE),
]
DIFFERENT: list[object] = [
    None, True, 1, 1.0, -0.0, 0.0, "1", b"1", bytearray(b"1"), 1j, Decimal(1), date(2026, 1, 1),
    datetime(2026, 1, 1, tzinfo=UTC), timedelta(1), UUID(int=1), PurePosixPath("1"), Colour.RED, Colour.BLUE,
    [1], (1,), {1}, frozenset({1}), {1: 1}, {1: 2}, {2: 1}, OrderedDict({1: 1}), defaultdict(int, {1: 1}), Counter([1]),
    deque([1]), [[1]], [1, 1], ["1", "1"], ["11"], Order(1, []), Order(2, []), Parcel(1.0), Parcel(2.0), Point(1, 2),
    Point(2, 1), (1, 2), Model(name="n"), Model(name="m"), Row(1), Row(2), np.int64(1), np.int32(1),
    np.array([1, 2]), np.array([[1, 2]]), np.array([1, 2], dtype="i4"), np.array([], dtype="i4"),
    np.array([], dtype="i8"), range(1), ...,
]  # fmt: skip


FACTORIES: list[Any] = [None, int, list, Order]
#: Values that differ in what is easily left out.
HIDDEN: list[object] = [
    masked([False, False]), masked([False, True]), masked([True, True]), masked([True, True], fill_value=7), padded(0),
    np.array(["2026-01-01"], "M8[D]"), np.array(["2026-01-02"], "M8[D]"), np.array(["2026-01-01"], "M8[s]"),
    np.datetime64("2026-01-01"), np.datetime64("2026-01-02"), np.timedelta64(1, "s"), np.timedelta64(2, "s"),
    np.array([1, 2]).view(np.recarray), np.array(["ab"]), np.zeros(2, "U0"),
    with_items(Titled(), {"a": 1}), with_items(Titled(), {"a": 2}), with_items(Titled("t"), {"a": 1}), Titled(),
    with_items(Stack(), [1]), with_items(Stack(), [2]), Amount(1), Amount(2),
    Tracked(1, []), Tracked(1, [], "web"), filled(Slot(1, [])), filled(Slot(1, []), source="web"),
    filled(Marked(1, 2)), filled(Marked(1, 2), mark="m"), filled(Loose(1)), filled(Loose(1), mark="m"),
    filled(Parcel(1.5)), filled(Order(1, ["a"]), source="web"), filled(Order(1, ["a"]), target="web"),
    Rejected(1), Rejected(2),
    Noted(), filled(Noted(), _notes=["n"]), Noted.model_validate({"a": 1}), Noted.model_validate({"b": 1}),
    Permission(0), Permission.READ, Permission.READ | Permission.WRITE, Permission.WRITE,
    Colour.RED, Other.RED, Late(1), filled(Late(1), lines=[]), 10**5000, 10**5000 + 1, Path("1"),
    *(defaultdict(factory, {1: 1}) for factory in FACTORIES),
    deque([1]), deque([1], maxlen=5), deque([1], maxlen=6), deque([1, 5]), with_items(Recent(), [1]),
    with_items(Recent([], 5), [1]), Model(name="n"), Model(name="n", tags=set()), Noted(name=""),
]  # fmt: skip


#: Hashes in caches that users have stored. Change none of them: their values would be computed again.
STORED: list[tuple[object, str]] = [
    (None, "e9e0bd1150e8023d"),
    (True, "ed63af92b0a0f757"),
    (7, "53f9b5ea5acb3ca1"),
    (-10**4299, "50f2fee6e379b14b"),
    (1.5, "b1263c51db4c7b83"),
    (-0.0, "9e1522bb002e1cea"),
    (1j, "c7563ac082523c52"),
    ("tea", "66fdf511380d2d3e"),
    ("\ud800", "2a2fb93636a05907"),
    (b"tea", "9000cfdc922581b4"),
    (bytearray(b"tea"), "ae28672b58781ca5"),
    (Decimal("1.0"), "46a6cb8e070dc765"),
    (Fraction(1, 3), "2dc081af6b768238"),
    (date(2026, 1, 1), "0984382c7108d540"),
    (datetime(2026, 1, 1, tzinfo=UTC), "2641a8d6eb5b8be7"),
    (datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), "92cea69a2dc8fc85"),
    (timedelta(1), "d6a6d985121dc3f3"),
    (UUID(int=1), "13c35aca0eb4fe9b"),
    (range(3), "aa1a1111efd2902a"),
    (..., "5c22606a9bba3f85"),
    ([1, "a", None], "79f9ea223144a70a"),
    ((1, 2.5), "2e67121286340be1"),
    (deque([1]), "f75f52d01ecea324"),
    ({1, 2}, "85634f1b3477ff80"),
    (frozenset({1}), "42d41698ae1d0bd6"),
    ({"a": [1], "b": {2}}, "a1f4b2ecf3bac23b"),
    (OrderedDict(a=1, b=2), "3f56ba895400d33d"),
    (defaultdict(int, a=1), "aae0d11da651a75f"),
    (Counter("aab"), "5b45eba0eccd5540"),
    (Colour.RED, "340d9c4224a8cea8"),
    (Permission.READ, "4d9a791645b92000"),
    (Permission.READ | Permission.WRITE, "ea98e89993e514c1"),
    (Order(1, ["a"]), "7d8ea84e60625475"),
    (Parcel(1.5), "8a5dfd0aa01b0bcd"),
    (Point(1, 2), "3f8d0cc4752f189e"),
    (Model(name="n", tags={"a"}), "f5ab52725a4e6d31"),
    (Row(1), "30fd8d80c7070b95"),
    (Rejected(1), "d91c868e53cbc778"),
    (np.float64(1.5), "42f8896d563f2393"),
    (np.str_("a"), "570334e5104a8a52"),
    (np.array([[1, 2], [3, 4]]), "8d8c0cbbca5415f7"),
    (np.array(["a", "bc"]), "576c1129972f4730"),
    (np.array([(1, 2.0)], [("a", "i1"), ("b", "f8")]), "9313a121ce20fbe7"),
    (np.zeros((2, 0)), "1f9859feef84b0f0"),
]  # fmt: skip


def test_hashes_are_those_of_stored_caches() -> None:
    assert [hashed(value).hex()[:16] for value, _ in STORED] == [known for _, known in STORED]


def test_values_that_differ_in_what_they_hold_besides_have_different_hashes() -> None:
    assert len({hashed(value) for value in HIDDEN}) == len(HIDDEN)


def test_what_was_computed_from_the_fields_does_not_count() -> None:
    @dataclass
    class Box:
        side: int

        @cached_property
        def volume(self) -> int:
            return self.side**3

    @attrs.define
    class Slotted:
        side: int

        @cached_property
        def volume(self) -> int:
            return self.side**3

    class Modelled(BaseModel):
        side: int

        @cached_property
        def volume(self) -> int:
            return self.side**3

    for kind in (Box, Slotted, Modelled):
        fresh, used = kind(side=2), kind(side=2)
        assert used.volume == 8
        assert hashed(fresh) == hashed(used)


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_values_have_equal_hashes(one: object, other: object) -> None:
    assert hashed(one) == hashed(other)


def test_different_values_have_different_hashes() -> None:
    assert len({hashed(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_order_counts_where_equality_says_so() -> None:
    assert hashed(OrderedDict(a=1, b=2)) != hashed(OrderedDict(b=2, a=1))


def test_hashes_are_the_same_in_other_processes() -> None:
    code = (
        "from dagorama.values.content_hash import content_hash\n"
        "print(content_hash({'x': {'a', 'b', 'c'}, 'y': [1.5, None]}, '').hex())"
    )
    here = hashed({"y": [1.5, None], "x": {"c", "b", "a"}}).hex()
    for seed in "12":
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        found = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == here


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), "it is of type builtins.object"),
        ([1, {"k": Order(1, [object()])}], "it[1]['k'].lines[0] is of type builtins.object"),  # type: ignore[list-item]
        (lambda: 1, "it is of type builtins.function"),
        (Order, "it is of type builtins.type"),
        (np.array([object()]), "it is of type numpy.ndarray"),
        ({(1, object())}, "an item of it[1] is of type builtins.object"),
        ([defaultdict(lambda: 1)], "it[0].default_factory is of type builtins.function"),
        ([np.array([1]).view(Array)], "it[0] is of type tests.values.test_content_hash.Array"),
        (np.ma.masked, "it is of type numpy.ma"),
        (datetime(2026, 1, 1, tzinfo=Zone()), "it.tzinfo is of type tests.values.test_content_hash.Zone"),
        (
            [Broken(1)],
            "it[0] is of type tests.values.test_content_hash.Broken, whose content could not be read (ZeroDiv",
        ),
        ({Broken(1): 2}, "a key of it is of type tests.values.test_content_hash.Broken"),
        (Filed(1), "it is of type tests.values.test_content_hash.Filed"),
        (filled(Order(1, []), lock=object()), "it.lock is of type builtins.object"),
        (Missing(1), "it is of type tests.values.test_content_hash.Missing"),
        (Elsewhere("a"), "it is of type tests.values.test_content_hash.Elsewhere"),
    ],
)
def test_other_values_are_refused_with_their_path(value: object, path: str) -> None:
    with pytest.raises(UncacheableArgument) as caught:
        hashed(value)
    assert f"{caught.value}".startswith(path)
    assert "Cache(key=...)" in f"{caught.value}"


def test_a_value_that_contains_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(UncacheableArgument, match=f"more than {DEPTH} containers"):
        hashed(endless)


def test_arrow_tables_are_read_by_their_buffers() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": [1, 2, 3], "b": ["x", None, "z"]})
    pieces = pyarrow.concat_tables([table.slice(0, 1), table.slice(1)])
    assert hashed(table) == hashed(pieces)
    assert hashed(table) != hashed(table.slice(1))
    assert hashed(table["a"]) == hashed(pieces["a"])
    assert hashed(table["a"]) != hashed(pyarrow.table({"a": [1, 2, 3]}))
