"""The figures of a whole run, and what follows from them: ratios, lost rows, goals. It only computes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple, TypeAlias

from peers.rows import GOALS, ROWS, Goal, Row
from peers.turns import Turn

OURS = "dagorama"
#: Seconds. A part that took a system longer is measured once, so that the whole run takes minutes.
SLOW = 10.0
Verdict: TypeAlias = Literal["reached", "missed", "not measured"]


class FiguresError(Exception):
    """A file does not have the figures of a run."""


class Lost(NamedTuple):
    """A row in which a peer is ahead."""

    row: Row
    peer: str
    ratio: float


@dataclass(slots=True)
class Figures:
    """All figures of all rounds, in the order of the rounds."""

    machine: dict[str, str]
    rounds: int
    sizes: dict[str, int]
    titles: dict[str, str]  #: of the systems, by their names
    versions: dict[str, str] = field(default_factory=dict)
    runs: dict[str, dict[str, list[float]]] = field(default_factory=dict)  #: by row and system
    slow: dict[str, list[str]] = field(default_factory=dict)  #: parts that a system does once, by its name
    missing: list[str] = field(default_factory=list)  #: a sentence for each system that is not installed
    troubles: list[str] = field(default_factory=list)  #: a sentence for each turn that did not finish

    def add(self, system: str, turn: Turn) -> None:
        """Take in what a system did in a turn."""
        for row, figure in turn.figures.items():
            self.runs.setdefault(row, {}).setdefault(system, []).append(figure)
        self.slow.setdefault(system, []).extend(part for part, seconds in turn.seconds.items() if seconds > SLOW)
        self.versions[system] = turn.version or self.versions.get(system, "")
        if turn.trouble:
            self.troubles.append(turn.trouble)

    def figure(self, row: str, system: str) -> float | None:
        """Return the median of the rounds; None if there is none."""
        runs = self.runs.get(row, {}).get(system)
        return median(runs) if runs else None

    def ratio(self, row: str, peer: str) -> float | None:
        """Return our median divided by the peer's; None if one of them is not there."""
        ours, theirs = self.figure(row, OURS), self.figure(row, peer)
        return ours / theirs if ours is not None and theirs else None

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")


def read(file: Path) -> Figures:
    """Return what `write` wrote. Raise `FiguresError` for any other file."""
    try:
        return Figures(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise FiguresError(f"{file} does not have the figures of `make bench-peers`: {error}") from error


def is_lost(row: Row, ratio: float) -> bool:
    return ratio < 1 if row.more else ratio > 1


def lost(figures: Figures) -> Iterator[Lost]:
    """Every row and peer that is ahead in it."""
    for row in ROWS:
        for peer in figures.titles:
            ratio = None if peer == OURS else figures.ratio(row.key, peer)
            if ratio is not None and is_lost(row, ratio):
                yield Lost(row, peer, ratio)


def verdict(figures: Figures, goal: Goal) -> Verdict:
    ratio = figures.ratio(goal.row, goal.peer)
    if ratio is None:
        return "not measured"
    more = next(row.more for row in ROWS if row.key == goal.row)
    return "reached" if (ratio >= goal.times if more else ratio <= goal.times) else "missed"


def verdicts(figures: Figures) -> list[tuple[Goal, Verdict]]:
    """Return all goals of rows that were measured."""
    return [(goal, verdict(figures, goal)) for goal in GOALS if goal.row in figures.runs]
