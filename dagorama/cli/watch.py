"""`dagorama watch`: the progress of an instance, or the queues of the broker, until it ends or Ctrl-C.

The rule: data goes to standard output, and nothing is redrawn unless a person looks at it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import TYPE_CHECKING

import click

from dagorama.cli.activity import show_activity
from dagorama.cli.base import broker_options, connect, report_errors, target, whole_ids
from dagorama.cli.exit_codes import ExitCode
from dagorama.cli.output import Output, document
from dagorama.cli.parameters import filter_option
from dagorama.client.display.progress import display_for
from dagorama.client.display.tables import uuid_text
from dagorama.models.progress import Progress

if TYPE_CHECKING:
    from dagorama.client.connection import Connection


@click.command()
@click.argument("instance", type=target, required=False)
@filter_option("--queue", help="Without INSTANCE: only this queue.")
@broker_options()
def watch(instance: str | None, queue: str, host: str | None, port: int | None, output: Output) -> None:
    """Show how many nodes of each function are done, running, waiting and failed, until the instance has ended.

    The table grows with the graph. The exit code is 1 if a node has failed or was cancelled. Without INSTANCE, show the
    queues of the broker with their nodes until you press Ctrl-C. With -o json or -o jsonl, print one line of JSON for
    each change.
    """
    if instance is not None and queue:
        raise click.UsageError("--queue is for watching queues; leave INSTANCE out")
    with report_errors():
        broker = connect(host, port)
        if instance is None:
            show_activity(broker, queue, output)
            return
        last = _watch_instance(broker, instance, output)
    sys.exit(ExitCode.REFUSED if last is not None and last.has_failed else ExitCode.OK)


def _watch_instance(broker: Connection, instance: str, output: Output) -> Progress | None:
    from dagorama.client.progress import Watch

    id, nodes = whole_ids(broker, instance)
    if nodes:
        raise click.UsageError("watch takes an instance, and this names a node; `dagorama logs --follow` follows one")
    states, name = Watch(broker, id), uuid_text(id) or ""
    return show_progress(name, states) if output is Output.TABLE else _last(_each_as_json(name, states))


def show_progress(id: str, states: Iterable[Progress], *, err: bool = False) -> Progress | None:
    """Show each state on stdout or stderr, redrawn on a terminal; return the last one, None if there is none."""
    display, last = display_for(id, sys.stderr if err else sys.stdout), None
    try:
        for last in states:
            display.show(last)
    finally:
        display.close()
    return last


def _last(states: Iterable[Progress]) -> Progress | None:
    return reduce(lambda _, state: state, states, None)


def _each_as_json(id: str, states: Iterable[Progress]) -> Iterator[Progress]:
    for progress in states:
        click.echo(json.dumps(document(progress_data(id, progress))))
        yield progress


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
        "left_out": progress.left_out,
        "reports": [
            {
                "node": uuid_text(each.node_id.bytes), "function": each.function, "message": each.message,
                "fraction": each.fraction, "time": each.time,
            }
            for each in progress.reports
        ],
    }  # fmt: skip
