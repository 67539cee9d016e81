"""Show the progress of an instance while it runs, for `dagorama watch`: a live table, or lines if no terminal reads it.

The rule: data goes to standard output, and nothing is redrawn unless a person looks at it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import TYPE_CHECKING

import click

from dagorama.cli.base import INSTANCE, broker_options, connect, report_errors, whole_ids
from dagorama.cli.exit_codes import ExitCode
from dagorama.cli.output import Output, document
from dagorama.cli.tables import duration_text, report_text, table, uuid_text
from dagorama.models.progress import FunctionProgress, Progress

if TYPE_CHECKING:
    from rich.table import Table

HEADS = ("function", "done", "running", "waiting", "failed", "mean", "left")
#: Seconds without new nodes after which the time that is left is estimated.
SETTLED = 5.0
#: Reports of running nodes that are shown.
SHOWN_REPORTS = 5
#: Seconds between two lines for a reader that is not a terminal.
PAUSE = 10.0


@click.command()
@INSTANCE
@broker_options()
def watch(instance: str, host: str | None, port: int | None, output: Output) -> None:
    """Show how many nodes of each function are done, running, waiting and failed, until the instance has ended.

    The table grows with the graph. With -o json or -o jsonl, print one line of JSON for each change. The exit code is
    1 if a node has failed or was cancelled.
    """
    from dagorama.client.progress import Watch

    with report_errors():
        broker = connect(host, port)
        id = whole_ids(broker, instance)[0]
        states = Watch(broker, id)
        name = uuid_text(id) or ""
        last = show_progress(name, states) if output is Output.TABLE else _last(_each_as_json(name, states))
    sys.exit(ExitCode.REFUSED if last is not None and last.has_failed else ExitCode.OK)


def show_progress(id: str, states: Iterable[Progress], *, err: bool = False) -> Progress | None:
    """Show each state on stdout or stderr, redrawn on a terminal; return the last one, None if there is none."""
    if (sys.stderr if err else sys.stdout).isatty():
        return _live(id, states, err)
    return _last(_each_as_line(states, err))


def _last(states: Iterable[Progress]) -> Progress | None:
    return reduce(lambda _, state: state, states, None)


def _each_as_json(id: str, states: Iterable[Progress]) -> Iterator[Progress]:
    for progress in states:
        click.echo(json.dumps(document(progress_data(id, progress))))
        yield progress


def _each_as_line(states: Iterable[Progress], err: bool) -> Iterator[Progress]:
    """Print a line now and then, and the table at the end."""
    at = 0.0
    for progress in states:
        if progress.ended_at is not None:
            click.echo(table(HEADS, _rows(progress, None)), err=err)
            click.echo(_summary(progress), err=err)
        elif (now := time.monotonic()) >= at:
            click.echo("\n  ".join([_summary(progress), *_report_lines(progress)]), err=err)
            at = now + PAUSE
        yield progress


def _live(id: str, states: Iterable[Progress], err: bool) -> Progress | None:
    """Redraw the table for each state."""
    from rich.console import Console
    from rich.live import Live

    total, since, last = 0, 0.0, None
    with Live(console=Console(stderr=err), auto_refresh=False) as live:
        for last in states:
            if last.total != total:
                total, since = last.total, time.monotonic()
            left = _seconds_left(last) if time.monotonic() - since >= SETTLED else None
            live.update(_rich_table(id, last, left), refresh=True)
    return last


def _report_lines(progress: Progress) -> list[str]:
    """Return a line for each node that has reported its progress."""
    return [
        f"{each.function.rpartition(':')[2]} {each.node_id}  {report_text(each.message, each.fraction)}"
        for each in progress.reports[:SHOWN_REPORTS]
    ]


def _rich_table(id: str, progress: Progress, left: float | None) -> Table:
    from rich.table import Table
    from rich.text import Text

    caption = Text("\n".join([_summary(progress), *_report_lines(progress)]))
    drawn = Table(title=f"{progress.definition}  {id}", caption=caption, title_justify="left")
    for head in HEADS:
        drawn.add_column(head, justify="left" if head == "function" else "right", no_wrap=head != "function")
    for row in _rows(progress, left):
        cells = [Text(cell) for cell in row]
        cells[4].stylize("bold red" if row[4] else "")
        cells[2].stylize("green" if row[2] else "")
        drawn.add_row(*cells)
    return drawn


def _rows(progress: Progress, left: float | None) -> list[tuple[str, ...]]:
    left_text = duration_text(int(left * 1_000_000)) if left else ""
    is_alone = len(progress.functions) == 1
    rows = [(*_row(each), left_text if is_alone else "") for each in progress.functions]
    if rows and not is_alone:
        rows.append(("in all", f"{progress.done} of {progress.total}", *_texts(progress), "", left_text))
    if progress.left_out:
        rows.append((f"{progress.left_out} more functions", *[""] * (len(HEADS) - 1)))
    return rows


def _row(each: FunctionProgress) -> tuple[str, ...]:
    mean = duration_text(int((each.mean_seconds or 0.0) * 1_000_000))
    return (each.function.rpartition(":")[2], f"{each.done} of {each.total}", *_texts(each), mean)


def _texts(counted: Progress | FunctionProgress) -> tuple[str, str, str]:
    running, waiting, failed = (f"{n}" if n else "" for n in (counted.running, counted.waiting, counted.failed))
    return running, waiting, failed


def _seconds_left(progress: Progress) -> float | None:
    """Estimate the time until the last node ends, from mean run times and the nodes that run now; None: unknown."""
    if not progress.running:
        return None
    unfinished = [(each.running + each.waiting, each.mean_seconds) for each in progress.functions]
    if any(nodes and mean is None for nodes, mean in unfinished):
        return None
    return sum(nodes * (mean or 0.0) for nodes, mean in unfinished) / progress.running


def _summary(progress: Progress) -> str:
    """Return the state in one line."""
    if progress.ended_at is not None:
        took = duration_text(int((progress.ended_at - progress.created) * 1_000_000))
        how = f"ended with {progress.failed} failed or cancelled nodes" if progress.has_failed else "completed"
        return f"{how} after {took}: {progress.done} of {progress.total} nodes done"
    parts = [f"{progress.done} of {progress.total} nodes known so far are done", f"{progress.running} run"]
    parts += [f"{progress.waiting} wait"] if progress.waiting else []
    parts += [f"{progress.failed} failed"] if progress.failed else []
    return ", ".join(parts)


def progress_data(id: str, progress: Progress) -> dict[str, object]:
    """Return a state as JSON data."""
    return {
        "instance": id, "definition": progress.definition, "created": progress.created,
        "ended_at": progress.ended_at, "failed": progress.has_failed, "nodes": progress.total,
        "functions": [
            {
                "function": each.function, "states": {state.name: nodes for state, nodes in each.states.items()},
                "mean_seconds": each.mean_seconds, "longest_seconds": each.longest_seconds or None,
            }
            for each in progress.functions
        ],
        "reports": [
            {
                "node": uuid_text(each.node_id.bytes), "function": each.function, "message": each.message,
                "fraction": each.fraction, "time": each.time,
            }
            for each in progress.reports
        ],
    }  # fmt: skip
