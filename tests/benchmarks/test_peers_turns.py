"""A turn starts a system, compares every result, and leaves no process behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from peers import functions
from peers.parts import PARTS, WARM, Pipeline, WrongResultError
from peers.systems import System, installed
from peers.turns import turn

SYSTEM = System("executor", "the executor", "peers.executor:Executor", Path(sys.executable))


class Here:
    """All parts, computed in this process."""

    def version(self) -> str:
        return "here"

    def one(self, number: int) -> int:
        return functions.nothing(number)

    def fan(self, width: int) -> int:
        return functions.total([functions.nothing(number) for number in range(width)])

    def chain(self, length: int) -> int:
        value = 0
        for _ in range(length):
            value = functions.step(value)
        return value

    def hop(self, length: int) -> int:
        return self.chain(length)

    def small(self, instances: int, callers: int) -> list[int]:
        squares = [[functions.square(number + offset) for offset in range(4)] for number in range(instances)]
        return [functions.total(each) for each in squares]

    def together(self, instances: int) -> list[int]:
        return self.small(instances, 1)

    def turn(self, blocks: list[bytes]) -> list[bytes]:
        return [functions.turned(block) for block in blocks]

    def pipeline(self, wanted: Pipeline) -> functions.Summary:
        block = functions.begin(wanted.pattern, wanted.size)
        for number in range(wanted.handed):
            block = functions.hand_on(block, number)
        return functions.summary(block, wanted.handed)


class Wrong(Here):
    """All parts, with wrong results."""

    def one(self, number: int) -> int:
        return -1

    def fan(self, width: int) -> int:
        return -1

    def chain(self, length: int) -> int:
        return -1

    def small(self, instances: int, callers: int) -> list[int]:
        return [-1]

    def turn(self, blocks: list[bytes]) -> list[bytes]:
        return blocks

    def pipeline(self, wanted: Pipeline) -> functions.Summary:
        return functions.Summary(wanted.size, ())


@pytest.mark.parametrize("part", PARTS)
def test_a_part_measures_a_system_that_is_right(part: str) -> None:
    assert all(figure > 0 for _, figure in PARTS[part](Here(), WARM))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_refuses_wrong_results(part: str) -> None:
    with pytest.raises(WrongResultError):
        list(PARTS[part](Wrong(), WARM))


def test_a_turn_has_figures_times_and_a_version() -> None:
    done = turn(SYSTEM, ["fan"], quick=True)
    assert not done.trouble
    assert done.figures.keys() == {"start", "fan"}
    assert done.seconds.keys() == {"fan"}
    assert done.version.startswith("Python ")


def test_a_system_that_fails_is_named_with_its_error() -> None:
    done = turn(SYSTEM, ["pipeline"], quick=True)
    assert done.trouble == (
        "the executor ended with code 1: AttributeError: 'Executor' object has no attribute 'pipeline'"
    )
    assert done.figures.keys() == {"start"}, "what it did before is kept"


def test_a_system_that_is_not_there_is_left_out_with_a_sentence(tmp_path: Path) -> None:
    absent = System("ray", "Ray", "peers.executor:Executor", tmp_path / "python")
    lacking = System("dask", "Dask", "peers.executor:Executor", Path(sys.executable), module="no_such_module")
    found, missing = installed([SYSTEM, absent, lacking])
    assert found == [SYSTEM]
    assert missing == [
        f"Ray is left out: there is no {tmp_path}/python; run it with `make bench-peers`, which makes it.",
        f"Dask is left out: {sys.executable} does not have the package no_such_module; `make bench-peers` installs it.",
    ]
