"""Show the progress of an instance to a person: as a table that is redrawn, as lines, or as HTML in a notebook.

The rule: one display shows one instance, and is told each state that it should show.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from html import escape
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Protocol

from dagorama.client.display.tables import duration_text, harmless, report_text, table
from dagorama.models.progress import FunctionProgress, Progress

if TYPE_CHECKING:
    from rich.table import Table

HEADS = ("function", "done", "running", "waiting", "failed", "mean", "left")
#: Seconds without new nodes after which the time that is left is estimated.
SETTLED = 5.0
#: Characters of the names of functions for which a terminal must have room besides the other columns.
FEWEST_OF_NAMES = 12
#: Reports of running nodes that are shown.
SHOWN_REPORTS = 5
#: Seconds between two lines for a reader that is not a terminal.
PAUSE = 10.0


class Display(Protocol):
    """Shows the states of one instance."""

    def show(self, progress: Progress) -> None: ...

    def close(self) -> None:
        """Leave the last state on the screen."""
        ...


def display_for(name: str, stream: IO[str], *, notebooks: bool = False) -> Display:
    """Return a display for this terminal or file; `name` is the instance. With `notebooks`, HTML in a notebook."""
    if notebooks and (show_html := _notebook()) is not None:
        return NotebookDisplay(name, show_html)
    return LiveDisplay(name, stream) if stream.isatty() else LineDisplay(stream)


class Settling:
    """Estimates the time that is left, once the graph has stopped growing."""

    def __init__(self) -> None:
        self._total, self._since = 0, 0.0

    def seconds_left(self, progress: Progress) -> float | None:
        """Return the estimate; None: it is unknown."""
        if progress.total != self._total:
            self._total, self._since = progress.total, time.monotonic()
        return seconds_left(progress) if time.monotonic() - self._since >= SETTLED else None


class LineDisplay:
    """Prints a line now and then, and the table at the end."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._at = 0.0

    def show(self, progress: Progress) -> None:
        if progress.ended_at is not None:
            self._print(table(HEADS, rows(progress, None)), summary(progress))
        elif (now := time.monotonic()) >= self._at:
            self._print("\n  ".join([summary(progress), *report_lines(progress)]))
            self._at = now + PAUSE

    def close(self) -> None:
        """Do nothing: all lines are printed."""

    def _print(self, *lines: str) -> None:
        print(*lines, sep="\n", file=self._stream, flush=True)


class LiveDisplay:
    """Redraws a table on a terminal."""

    def __init__(self, name: str, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._name = name
        self._settling = Settling()
        self._live = Live(console=Console(file=stream), auto_refresh=False)
        self._live.start()

    def show(self, progress: Progress) -> None:
        left = self._settling.seconds_left(progress)
        self._live.update(rich_table(self._name, progress, left, self._live.console.width), refresh=True)

    def close(self) -> None:
        self._live.stop()


class NotebookDisplay:
    """Updates one cell output with plain HTML, which every notebook front end shows."""

    def __init__(self, name: str, show_html: Callable[[str], None]) -> None:
        self._name = name
        self._settling = Settling()
        self._show_html = show_html

    def show(self, progress: Progress) -> None:
        self._show_html(html_of(self._name, progress, self._settling.seconds_left(progress)))

    def close(self) -> None:
        """Do nothing: the last state stays in the notebook."""


def _notebook() -> Callable[[str], None] | None:
    """Return a function that shows HTML and replaces it when it is called again; None outside of notebooks."""
    shell = sys.modules.get("IPython")
    running: Any = shell.get_ipython() if shell is not None else None
    if running is None or not hasattr(running, "kernel"):
        return None
    shown: Any = import_module("IPython.display")
    handle = shown.display(shown.HTML(""), display_id=True)
    return lambda html: handle.update(shown.HTML(html))


# --- texts ------------------------------------------------------------------------------------------------


def report_lines(progress: Progress) -> list[str]:
    """Return a line for each node that has reported its progress."""
    return [
        f"{each.function.rpartition(':')[2]} {each.node_id}  {report_text(each.message, each.fraction)}"
        for each in progress.reports[:SHOWN_REPORTS]
    ]


def rich_table(name: str, progress: Progress, left: float | None, width: int) -> Table:
    """Return the table of a state for a terminal with this many columns; a narrow one has two columns of text."""
    from rich.table import Table
    from rich.text import Text

    caption = Text("\n".join([summary(progress), *report_lines(progress)]))
    drawn = Table(title=Text(f"{harmless(progress.definition)}  {name}"), caption=caption, title_justify="left")
    found = rows(progress, left)
    if _needed([HEADS, *found]) > width:
        for head in ("function", "nodes"):
            drawn.add_column(head, overflow="fold")
        for row in found:
            drawn.add_row(Text(harmless(row[0])), Text(_in_words(row)))
        return drawn
    for head in HEADS:
        is_name = head == "function"
        drawn.add_column(head, justify="left" if is_name else "right", no_wrap=not is_name, overflow="fold")
    for row in found:
        cells = [Text(harmless(cell)) for cell in row]
        cells[4].stylize("bold red" if row[4] else "")
        cells[2].stylize("green" if row[2] else "")
        drawn.add_row(*cells)
    return drawn


def _needed(lines: Sequence[Sequence[str]]) -> int:
    """Return how many columns a terminal needs for a table in which only the names of functions are folded."""
    names, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    borders = 3 * len(HEADS) + 1
    return min(names, FEWEST_OF_NAMES) + sum(others) + borders


def _in_words(row: Sequence[str]) -> str:
    """Return what a row says of nodes as text, such as `2 of 3 done, 1 running, mean 3 s`."""
    _, done, running, waiting, failed, mean, left = row
    counted = zip((done, running, waiting, failed), HEADS[1:5], strict=True)
    parts = [f"{count} {what}" for count, what in counted if count]
    return ", ".join([*parts, *([f"mean {mean}"] if mean else []), *([f"{left} left"] if left else [])])


def html_of(name: str, progress: Progress, left: float | None) -> str:
    """Return the table of a state as HTML, with a bar for each function."""
    heads = "".join(f"<th>{escape(head)}</th>" for head in ("", *HEADS))
    bars = [f'<progress value="{its.done + its.failed}" max="{its.total}"></progress>' for its in progress.functions]
    lines = [
        f"<tr><td>{bar}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for bar, row in zip([*bars, "", ""], rows(progress, left), strict=False)
    ]
    title = f"<b>{escape(progress.definition)}</b> {escape(name)}"
    reports = "".join(f"<br>{escape(line)}" for line in report_lines(progress))
    return f"{title}<table><tr>{heads}</tr>{''.join(lines)}</table>{escape(summary(progress))}{reports}"


def rows(progress: Progress, left: float | None) -> list[tuple[str, ...]]:
    """Return a row for each function, and one for all."""
    left_text = duration_text(int(left * 1_000_000)) if left else ""
    is_alone = len(progress.functions) == 1
    found = [(*_row(each), left_text if is_alone else "") for each in progress.functions]
    if found and not is_alone:
        found.append(("in all", f"{progress.done} of {progress.total}", *_texts(progress), "", left_text))
    if progress.left_out:
        found.append((f"{progress.left_out} more functions", *[""] * (len(HEADS) - 1)))
    return found


def _row(each: FunctionProgress) -> tuple[str, ...]:
    mean = duration_text(int((each.mean_seconds or 0.0) * 1_000_000))
    return (each.function.rpartition(":")[2], f"{each.done} of {each.total}", *_texts(each), mean)


def _texts(counted: Progress | FunctionProgress) -> tuple[str, str, str]:
    running, waiting, failed = (f"{n}" if n else "" for n in (counted.running, counted.waiting, counted.failed))
    return running, waiting, failed


def seconds_left(progress: Progress) -> float | None:
    """Estimate the time until the last node ends, from mean run times and the nodes that run now; None: unknown."""
    if not progress.running:
        return None
    unfinished = [(each.running + each.waiting, each.mean_seconds) for each in progress.functions]
    if any(nodes and mean is None for nodes, mean in unfinished):
        return None
    return sum(nodes * (mean or 0.0) for nodes, mean in unfinished) / progress.running


def summary(progress: Progress) -> str:
    """Return the state in one line."""
    if progress.ended_at is not None:
        took = duration_text(int((progress.ended_at - progress.created) * 1_000_000))
        how = f"ended with {progress.failed} failed or cancelled nodes" if progress.has_failed else "completed"
        return f"{how} after {took}: {progress.done} of {progress.total} nodes done"
    parts = [f"{progress.done} of {progress.total} nodes known so far are done", f"{progress.running} run"]
    parts += [f"{progress.waiting} wait"] if progress.waiting else []
    parts += [f"{progress.failed} failed"] if progress.failed else []
    return ", ".join(parts)
