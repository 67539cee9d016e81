"""The tables of a run, in Markdown: figures with ratios, lost rows, goals. Pages of the documentation hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from suite.table import number

from peers.figures import OURS, Figures, Lost, is_lost, lost, verdicts
from peers.rows import ROWS, Goal, Row
from peers.systems import TABLES, TITLES

START, END = "<!-- written by make bench-peers ARGS=--markdown -->", "<!-- until here -->"
WIDTH = 120  #: columns of a line of text


class PageError(Exception):
    """A page has no place for the tables."""


def text(figures: Figures) -> str:
    """Return everything that a run found."""
    columns = [[name for name in names if name in figures.titles] for names in TABLES]
    blocks = [_machine(figures), *(_table(figures, names) for names in columns if names)]
    blocks += [_lost(figures), _goals(figures), *map(wrapped, figures.missing + figures.troubles)]
    return "\n\n".join(block for block in blocks if block)


def written(page: str, figures: Figures) -> str:
    """Return a page with the tables between its two marks. Raise `PageError` if it does not have both, once each."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end or START in rest or END in after:
        raise PageError(f"the page needs the lines `{START}` and `{END}` once each, around the tables")
    return f"{before}{START}\n\n{text(figures)}\n\n{END}{after}"


def write(page: Path, figures: Figures) -> None:
    page.write_text(written(page.read_text(), figures))


def _machine(figures: Figures) -> str:
    versions = ", ".join(version for version in dict.fromkeys(figures.versions.values()) if version)
    machine = ", ".join(figures.machine.values())
    rounds = f"medians of {figures.rounds} rounds" if figures.rounds > 1 else "one round"
    return wrapped(f"{machine}. {versions}. Figures are {rounds}.")


def _table(figures: Figures, names: Sequence[str]) -> str:
    titles = [figures.titles[name] for name in (OURS, *names)]
    lines = [["workload", *titles], ["---"] * (len(titles) + 1)]
    for row in ROWS:
        if any(figures.ratio(row.key, name) is not None for name in names):
            lines.append([_title(figures, row), _ours(figures, row), *(_cell(figures, row, name) for name in names)])
    return _markdown(lines) if len(lines) > 2 else ""


def _title(figures: Figures, row: Row) -> str:
    return f"{row.title.format(**figures.sizes)}, {row.unit}"


def _ours(figures: Figures, row: Row) -> str:
    figure = figures.figure(row.key, OURS)
    return "failed" if figure is None else number(figure)


def _cell(figures: Figures, row: Row, peer: str) -> str:
    """Return the peer's figure and our ratio to it, in bold if the peer is ahead."""
    figure, ratio = figures.figure(row.key, peer), figures.ratio(row.key, peer)
    if figure is None or ratio is None:
        return ""
    remarks = [f"{ratio:.2f}"]
    if is_lost(row, ratio):
        remarks.append("lost")
    if row.part in figures.slow.get(peer, ()) and figures.rounds > 1:
        remarks.append("once")
    shown = f"{number(figure)} ({', '.join(remarks)})"
    return f"**{shown}**" if is_lost(row, ratio) else shown


def _lost(figures: Figures) -> str:
    found = list(lost(figures))
    if all(figures.figure(row.key, OURS) is None for row in ROWS):
        return "There are no figures of dagorama: no ratio can be shown."
    if not found:
        return "No measured row is lost."
    return wrapped(f"Lost rows: {'; '.join(_said(figures, each) for each in found)}.")


def _said(figures: Figures, each: Lost) -> str:
    return f"{each.row.title.format(**figures.sizes)}, to {figures.titles[each.peer]} ({each.ratio:.2f})"


def _goals(figures: Figures) -> str:
    lines = [["goal", "measured", ""], ["---"] * 3]
    for goal, verdict in verdicts(figures):
        ratio = figures.ratio(goal.row, goal.peer)
        lines.append([_goal(figures, goal), "" if ratio is None else f"{ratio:.2f}", verdict])
    return _markdown(lines) if len(lines) > 2 else ""


def _goal(figures: Figures, goal: Goal) -> str:
    row = next(row for row in ROWS if row.key == goal.row)
    most = "at least" if row.more else "at most"
    return f"{row.title.format(**figures.sizes)}: {most} {goal.times} times {TITLES[goal.peer]}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |".replace("  ", " ") for cells in lines)


def wrapped(paragraph: str) -> str:
    """Return a paragraph in lines of at most 120 characters."""
    return "\n".join(_lines(paragraph.split(" ")))


def _lines(words: Sequence[str]) -> Iterator[str]:
    line = ""
    for word in words:
        if line and len(line) + 1 + len(word) > WIDTH:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    yield line
