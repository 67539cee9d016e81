"""The tables show what is lost as plainly as what is not, and a page of the documentation takes them."""

from __future__ import annotations

import re

import pytest
from peers.figures import Figures
from peers.parts import FULL
from peers.systems import ROOT, TITLES
from peers.tables import END, START, WIDTH, PageError, text, written
from peers.turns import Turn


@pytest.fixture
def figures() -> Figures:
    return Figures({"machine": "two cores", "processor": "fast"}, 3, FULL._asdict(), dict(TITLES))


def line_of(figures: Figures, workload: str) -> str:
    return next(line for line in text(figures).splitlines() if line.startswith(f"| {workload}"))


def test_a_cell_has_the_figure_of_the_peer_and_our_ratio(figures: Figures) -> None:
    figures.add("dagorama", Turn({"wide": 20_000.0}))
    figures.add("ray", Turn({"wide": 2_000.0}))
    assert line_of(figures, "fan, 20,000") == "| fan, 20,000 nodes, nodes/s | 20,000 | | | 2,000 (10.00) |"


def test_a_lost_row_is_bold_and_says_so_in_the_table_and_below(figures: Figures) -> None:
    figures.add("dagorama", Turn({"round-trip-p50": 3.0}))
    figures.add("ray", Turn({"round-trip-p50": 2.0}))
    assert line_of(figures, "round trip, p50") == "| round trip, p50, ms | 3 | | | **2 (1.50, lost)** |"
    assert "Lost rows: round trip, p50, to Ray (1.50)." in text(figures)


def test_a_figure_of_a_part_that_is_too_slow_to_repeat_says_once(figures: Figures) -> None:
    figures.add("dagorama", Turn({"pipeline": 1.0}))
    figures.add("celery-prefork", Turn({"pipeline": 20.0}, {"pipeline": 20.0}))
    assert line_of(figures, "pipeline") == "| pipeline, 10 nodes, 64 MiB, s | 1 | 20 (0.05, once) | | |"


def test_goals_are_shown_with_what_was_measured(figures: Figures) -> None:
    figures.add("dagorama", Turn({"values": 180.0}))
    figures.add("ray", Turn({"values": 200.0}))
    shown = text(figures).splitlines()
    assert "| values, 32 of 4 MiB: at least 0.9 times Ray | 0.90 | reached |" in shown
    assert "| values, 32 of 4 MiB: at least 1.5 times Dask | | not measured |" in shown


def test_without_our_figures_nothing_is_said_of_lost_rows(figures: Figures) -> None:
    figures.add("dagorama", Turn(trouble="dagorama ended with code 1: broken"))
    figures.add("ray", Turn({"values": 200.0}))
    assert "There are no figures of dagorama" in text(figures)
    assert "dagorama ended with code 1: broken" in text(figures)
    assert "No measured row is lost" not in text(figures)


def test_missing_systems_are_named(figures: Figures) -> None:
    figures.missing.append("Ray is left out: it is not there.")
    assert "Ray is left out: it is not there." in text(figures)


def test_lines_of_whole_tables_are_as_long_as_those_of_the_documentation(figures: Figures) -> None:
    for name in TITLES:
        keys = ("fan", "wide", "chain", "hop", "round-trip-p50", "small-together", "values", "pipeline", "start")
        figures.add(name, Turn(dict.fromkeys(keys, 12_345.0), dict.fromkeys(keys, 99.0), f"{name} 2026.11.1"))
    assert max(map(len, text(figures).splitlines())) <= WIDTH


def test_a_page_gets_the_tables_between_its_marks(figures: Figures) -> None:
    figures.add("dagorama", Turn({"hop": 1.0}))
    page = written(f"before\n{START}\nold\n{END}\nafter\n", figures)
    assert page == f"before\n{START}\n\n{text(figures)}\n\n{END}\nafter\n"
    assert written(page, figures) == page


@pytest.mark.parametrize("page", ["", START, f"{END} {START}", f"{START} {START} {END}", f"{START} {END} {END}"])
def test_a_page_without_both_marks_once_is_refused(figures: Figures, page: str) -> None:
    with pytest.raises(PageError, match="once each, around the tables"):
        written(page, figures)


def test_the_page_of_the_documentation_takes_the_tables(figures: Figures) -> None:
    assert text(figures) in written((ROOT / "docs" / "explanation" / "benchmarks.md").read_text(), figures)


def test_the_figures_of_the_readme_are_in_the_tables_of_the_documentation() -> None:
    figures = (ROOT / "README.md").read_text().partition("\n## Figures\n")[2].partition("\n## ")[0]
    cells = [cell for row in figures.splitlines()[4:] if row.startswith("| ") for cell in row.split("|")[2:-1]]
    page = (ROOT / "docs" / "explanation" / "benchmarks.md").read_text()
    tables = page.partition(START)[2].partition(END)[0]
    numbers = {number for cell in cells for number in re.findall(r"\d[\d,.]*", cell)}
    assert numbers
    assert numbers <= set(re.findall(r"\d[\d,.]*(?<![,.])", tables))
