"""Hashes of content: equal in all processes for equal values, different for different ones, refused for the rest."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import NamedTuple
from uuid import UUID

import attrs
import msgspec
import numpy as np
import pytest
from pydantic import BaseModel

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
    ],
)
def test_other_values_are_refused_with_their_path(value: object, path: str) -> None:
    with pytest.raises(UncacheableArgument) as caught:
        hashed(value)
    assert f"{caught.value}".startswith(path)


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
