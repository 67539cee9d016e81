"""Digests of arguments: equal plain values have equal ones, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

import pytest

from dagorama.errors import NotPicklable
from dagorama.values.digest import stable_digest


class Color(Enum):
    RED = 1
    GREEN = 2


@dataclass
class Point:
    x: int
    y: object = None


class Plain:
    def __init__(self, value: int) -> None:
        self.value = value


VALUES: list[Any] = [
    None, False, True, 0, 1, 2, 1.0, -0.0, 0.0, 1j, "", "1", b"1", "None", [], (), {}, set(), frozenset(), [1], (1,),
    {1}, frozenset({1}), {1: 2}, {2: 1}, {"a": "b"}, [[1], 2], [1, [2]], [1, 2], [2, 1], ["ab", "c"], ["a", "bc"],
    Color.RED, Color.GREEN, Point(1), Point(2), Point(1, Point(1)), Plain(1), Plain(2), Decimal("1"), Decimal("1.0"),
    datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1), Path("a"), Path("b"), bytearray(b"1"),
]  # fmt: skip


def test_different_values_have_different_digests() -> None:
    digests = [stable_digest(value) for value in VALUES]
    assert len(set(digests)) == len(VALUES)


def test_it_does_not_depend_on_which_equal_parts_are_one_object() -> None:
    one, other = "a long text", "".join(["a long", " text"])
    assert one is not other
    assert stable_digest([one, one]) == stable_digest([one, other])
    assert stable_digest({"a": 1, "b": 2}) == stable_digest({"b": 2, "a": 1})


def test_it_is_the_same_in_processes_that_hash_differently() -> None:
    text = "from dagorama.values.digest import stable_digest as d; print(d([{'a', 'b', 'c', 'd'}, {'x': 1.5}]).hex())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", text], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_what_cannot_be_pickled_is_refused_by_name() -> None:
    with pytest.raises(NotPicklable, match="the arguments"):
        stable_digest([1, Lock()], "arguments")


def test_deep_and_circular_containers_end() -> None:
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    assert stable_digest(deep) != stable_digest([deep])
    circular: list[object] = []
    circular.append(circular)
    assert stable_digest(circular) == stable_digest(circular)
