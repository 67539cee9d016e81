"""The simulation of independent brokers runs on the scheduler, and its order is the scheduler's."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cells.py"


def test_slots_that_choose_between_brokers_come_near_to_the_order_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(f"{SCRIPT}")["main"]
    main(["--brokers", "8", "--slots", "64", "--instances", "60", "--connections", "1,2,8"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[3:]]
    one, two, all_of_them = ([float(field) for field in row] for row in rows)
    assert one[1] > two[1] > 0.9
    assert one[3] > two[3] > all_of_them[3]
