"""Look into nodes: `dagorama logs` prints what they have printed and logged, `dagorama stack` where one stands now.

The rule: what nodes write goes to standard output, and nothing that they write controls the terminal of the reader.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

import click

from dagorama.cli.base import (
    TARGET,
    Answer,
    broker_command,
    broker_options,
    connect,
    node_names,
    node_reference,
    report_errors,
    whole_ids,
)
from dagorama.cli.output import Output, document
from dagorama.cli.parameters import filter_option
from dagorama.client.display.tables import harmless, uuid_text
from dagorama.models.log_record import LogRecord

if TYPE_CHECKING:
    from dagorama.client.connection import Connection

#: Records whose nodes are named with one call, unless logs are followed.
TOGETHER = 500


@click.command()
@TARGET
@click.argument("node", type=node_reference, required=False)
@click.option("--follow", "-f", is_flag=True, help="Continue until the node, or the instance, has ended.")
@click.option("--attempt", type=click.IntRange(1, 2**32 - 1), help="Only this attempt.")
@filter_option("--function", help="Only nodes of this function, 'package.module:Class.method'.")
@click.option(
    "--since", help="Only records of the last seconds, such as 60, or since a time, such as 2030-01-31T12:00:00."
)
@click.option("--times", is_flag=True, help="Print the time of each record.")
@click.option("--raw", is_flag=True, help="Print control characters to the terminal as they are.")
@broker_options()
def logs(
    instance: str, node: str | None, follow: bool, attempt: int | None, function: str, since: str | None, times: bool,
    raw: bool, host: str | None, port: int | None, output: Output,
) -> None:  # fmt: skip
    """Print what the nodes of an instance, or NODE, have printed and logged.

    The broker keeps the first 16 KiB and the last 48 KiB of each attempt. Without NODE, each line begins with its
    node. With -o json or -o jsonl, print one line of JSON for each record.
    """
    from dagorama.api import broker_pb2
    from dagorama.client.logs import Logs

    with report_errors():
        broker = connect(host, port)
        whole, nodes = whole_ids(broker, instance, [node] if node is not None else [])
        if len(nodes) > 1:
            raise click.UsageError("logs takes one node; the first argument names one already")
        request = broker_pb2.GetLogsRequest(
            instance=whole, node=nodes[0] if nodes else b"", attempt=attempt or 0, function=function, follow=follow,
            since=_time(since) if since is not None else 0.0,
        )  # fmt: skip
        is_safe = raw or not sys.stdout.isatty()
        named = _named(broker, Logs(broker, request), 1 if follow else TOGETHER)
        lines = map(_json_line, named) if output is not Output.TABLE else _lines(named, not nodes, times, is_safe)
        is_empty = not _print(lines)
    if is_empty:
        missing = "nothing was printed"
        if function:
            missing = f"no node of {function!r} has printed anything (the whole name is needed, 'module:Class.method')"
        click.echo(f"No such logs are kept: {missing}, or it was removed, or workers have DAGORAMA_LOGS=off.", err=True)


def _time(text: str) -> float:
    with suppress(ValueError):
        if (seconds := float(text)) >= 0:
            return time.time() - seconds
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.UsageError(
            f"--since {text}: must be a number of seconds, or look like 2030-01-31T12:00:00"
        ) from None


def _print(lines: Iterable[bytes]) -> int:
    """Print each line at once, and return how many there were."""
    count = 0
    for count, line in enumerate(lines, 1):  # noqa: B007 - the last number is returned
        click.echo(line)
    return count


def _named(broker: Connection, records: Iterable[LogRecord], together: int) -> Iterator[tuple[str, LogRecord]]:
    """Yield each record with the name of its node."""
    names: dict[bytes, str] = {}
    rest = iter(records)
    while portion := list(islice(rest, together)):
        names |= node_names(broker, {record.node_id.bytes for record in portion} - names.keys())
        yield from ((names[record.node_id.bytes], record) for record in portion)


def _lines(records: Iterable[tuple[str, LogRecord]], with_node: bool, times: bool, is_safe: bool) -> Iterator[bytes]:
    for name, record in records:
        head = _head(record, name if with_node else "", times).encode()
        for line in _data(record, is_safe).split(b"\n"):
            yield head + line


def _head(record: LogRecord, node: str, times: bool) -> str:
    parts = []
    if times and record.time:
        parts.append(datetime.fromtimestamp(record.time).isoformat(sep=" ", timespec="milliseconds"))
    if node:
        again = f" attempt {record.attempt}" if record.attempt > 1 else ""
        parts.append(f"{node} {record.function.rpartition(':')[2]}{again} |")
    if record.stream == "logging":
        parts.append(f"{logging.getLevelName(record.level)} {record.logger}:")
    return "".join(f"{part} " for part in parts)


def _data(record: LogRecord, is_safe: bool) -> bytes:
    """Return the bytes to print: as they were written, or without anything that controls a terminal."""
    if is_safe and not (record.cut or record.left_out):
        return record.data
    text = record.text
    return (text if is_safe else harmless(text)).encode("utf-8", "backslashreplace")


def _json_line(named: tuple[str, LogRecord]) -> bytes:
    name, record = named
    data = {
        "time": record.time or None, "node": uuid_text(record.node_id.bytes), "name": name,
        "function": record.function,
        "attempt": record.attempt, "stream": record.stream,
        "level": logging.getLevelName(record.level) if record.level else None, "logger": record.logger or None,
        "text": record.data.decode("utf-8", "backslashreplace"), "cut": record.cut, "left_out": record.left_out,
    }  # fmt: skip
    return json.dumps(document(data)).encode()


# --- stacks -----------------------------------------------------------------------------------------------


@click.command()
@TARGET
@click.argument("node", type=node_reference, required=False)
@broker_command
def stack(broker: Connection, instance: str, node: str | None) -> Answer:
    """Show the stacks of all threads of the process that runs NODE, without interrupting it.

    It works while the node is busy in C code. Values of variables are not shown.
    """
    whole, nodes = whole_ids(broker, instance, [node] if node is not None else [])
    if len(nodes) != 1:
        raise click.UsageError("stack takes one node: INSTANCE/N, or an instance and a node")
    found = nodes[0]
    shown = broker.get_stack(whole, found)
    of = f"{shown.function}, node {node_names(broker, nodes)[found]}, attempt {shown.attempt}, on {shown.worker}"
    return Answer(f"{of}\n\n{shown.stack.rstrip()}", {
        "instance": uuid_text(whole), "node": uuid_text(found), "function": shown.function, "attempt": shown.attempt,
        "worker": shown.worker, "stack": shown.stack, "note": shown.note or None,
    }, f"Note: {shown.note}." if shown.note else "")  # fmt: skip
