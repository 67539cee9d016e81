"""Ratios, lost rows and goals follow from the figures of the rounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from peers.figures import SLOW, Figures, FiguresError, lost, read, verdict, verdicts
from peers.rows import GOALS, ROWS, Goal
from peers.systems import OURS, PEERS, QUEUES, TABLES
from peers.turns import Turn


@pytest.fixture
def figures() -> Figures:
    return Figures({"machine": "two cores"}, 3, {}, {"dagorama": "dagorama", "ray": "Ray", "dask": "Dask"})


def test_a_figure_is_the_median_of_the_rounds(figures: Figures) -> None:
    for value in (9.0, 1.0, 2.0):
        figures.add("ray", Turn({"values": value}))
    assert figures.figure("values", "ray") == 2.0
    assert figures.figure("values", "dask") is None


def test_a_ratio_is_ours_divided_by_theirs(figures: Figures) -> None:
    figures.add("dagorama", Turn({"values": 300.0}))
    figures.add("ray", Turn({"values": 400.0, "hop": 1.0}))
    assert figures.ratio("values", "ray") == 0.75
    assert figures.ratio("hop", "ray") is None, "ours was not measured"


def test_a_row_is_lost_if_the_peer_has_more_of_a_rate_or_less_of_a_time(figures: Figures) -> None:
    figures.add("dagorama", Turn({"values": 300.0, "hop": 1.0, "chain": 0.1}))
    figures.add("ray", Turn({"values": 400.0, "hop": 0.5, "chain": 1.0}))
    figures.add("dask", Turn({"values": 200.0, "hop": 2.0}))
    assert [(each.row.key, each.peer, each.ratio) for each in lost(figures)] == [
        ("hop", "ray", 2.0),
        ("values", "ray", 0.75),
    ]


@pytest.mark.parametrize(
    ("goal", "ours", "expected"),
    [
        (Goal("values", "ray", 0.9), 90.0, "reached"),
        (Goal("values", "ray", 0.9), 89.0, "missed"),
        (Goal("hop", "ray", 0.5), 50.0, "reached"),
        (Goal("hop", "ray", 0.5), 51.0, "missed"),
        (Goal("hop", "dask", 0.5), 1.0, "not measured"),
    ],
)
def test_a_goal_is_a_least_ratio_of_a_rate_and_a_greatest_of_a_time(
    figures: Figures, goal: Goal, ours: float, expected: str
) -> None:
    figures.add("dagorama", Turn({goal.row: ours}))
    figures.add("ray", Turn({goal.row: 100.0}))
    assert verdict(figures, goal) == expected


def test_goals_of_rows_that_were_not_measured_are_not_shown(figures: Figures) -> None:
    figures.add("dagorama", Turn({"hop": 1.0}))
    assert {goal.row for goal, _ in verdicts(figures)} == {"hop"}


def test_a_part_that_took_long_is_slow_for_that_system_only(figures: Figures) -> None:
    figures.add("ray", Turn(seconds={"pipeline": SLOW + 1, "hop": SLOW}))
    figures.add("dask", Turn(seconds={"pipeline": 1.0}))
    assert figures.slow == {"ray": ["pipeline"], "dask": []}


def test_figures_are_read_as_they_were_written(figures: Figures, tmp_path: Path) -> None:
    figures.add("ray", Turn({"hop": 1.0}, {"hop": 0.2}, "Ray 3", "Ray ended with code 1: broken"))
    figures.write(tmp_path / "figures.json")
    assert read(tmp_path / "figures.json") == figures


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": 1}'])
def test_another_file_is_refused_in_a_sentence(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(FiguresError, match=r"other\.json does not have the figures of `make bench-peers`"):
        read(file)


def test_every_goal_is_of_a_row_and_a_system_that_measures_it() -> None:
    parts = {system.name: system.parts for system in PEERS} | {"before": OURS.parts}
    part_of = {row.key: row.part for row in ROWS}
    assert all(part_of[goal.row] in parts[goal.peer] for goal in GOALS)


def test_every_peer_has_a_column_in_one_table() -> None:
    columns = [name for table in TABLES for name in table]
    assert sorted(columns) == sorted([*(peer.name for peer in PEERS), "before"])
    assert "wide" not in QUEUES
