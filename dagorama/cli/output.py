"""The output of commands: a table for people, or JSON, lines of JSON or IDs for programs.

The rule: data goes to standard output and words to standard error, nothing is cut unless a terminal shows it, and
nothing that nodes wrote controls the terminal of the reader.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import click

from dagorama.client.display.tables import harmless, utc

#: The version of the JSON documents: it is raised if a key changes its meaning or disappears.
SCHEMA_VERSION = 1
#: Keys of times in seconds since 1970. For each one, JSON has the same time in ISO 8601 under the key with "_utc".
TIMES = frozenset({
    "created", "created_at", "ended_at", "first_at", "last_at", "missed_at", "next_at", "not_before", "paused_since",
    "put_at", "ready_at", "retry_at", "since", "started_at", "time", "until", "waiting_for",
})  # fmt: skip


class Output(StrEnum):
    """The form of a command's output."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    NAME = "name"


DATA = (Output.TABLE, Output.JSON, Output.JSONL)
#: The forms of commands whose output has IDs.
NAMED = (*DATA, Output.NAME)


class Answer(NamedTuple):
    """The result of a command."""

    text: str  #: for people
    data: object  #: for programs: dicts, lists, texts and numbers
    note: str = ""  #: for people; printed on stderr in addition to the text or the data
    names: Sequence[str] = ()  #: IDs, for `-o name`
    records: Sequence[Mapping[str, object]] | None = None  #: for `-o jsonl`; None: the items of `data`, or `data`
    code: int = 0  #: exit code of the command, if a part of what was asked for was refused


def output_options(outputs: Sequence[Output] = DATA) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options -o and --json, whose value is passed as `output`."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def chosen(*arguments: Any, output: str | None, as_json: bool, **named: Any) -> Any:
            if as_json and output not in (None, Output.JSON):
                raise click.UsageError(f"--json stands for -o json, and contradicts -o {output}")
            return command(*arguments, output=Output.JSON if as_json else Output(output or Output.TABLE), **named)

        with_json = click.option("--json", "as_json", is_flag=True, help="The same as -o json.")(chosen)
        choice = click.Choice([each.value for each in outputs])
        return click.option("-o", "--output", type=choice, help="Output format.  [default: table]")(with_json)

    return add


def print_out(answer: Answer, output: Output) -> None:
    """Print the answer to a command in the requested form."""
    text = _text(answer, output)
    if text or output is Output.TABLE:
        say(text)
    if answer.note:
        say(answer.note, err=True)


def say(text: str, *, err: bool = False) -> None:
    """Print a text on stdout, or stderr; on a terminal with escapes for the characters that would control it.

    Errors, names and queues come from nodes and from other users of the broker.
    """
    stream = sys.stderr if err else sys.stdout
    click.echo(harmless(text) if stream.isatty() else text, err=err)


def _text(answer: Answer, output: Output) -> str:
    if output is Output.JSON:
        return json.dumps(document(answer.data), indent=2)
    if output is Output.JSONL:
        return "\n".join(json.dumps(document(record)) for record in _records(answer))
    return "\n".join(answer.names) if output is Output.NAME else answer.text


def _records(answer: Answer) -> Sequence[object]:
    if answer.records is not None:
        return answer.records
    return answer.data if isinstance(answer.data, list) else [answer.data]


def document(data: object) -> object:
    """Return data with the version of the schema, in each item of a list, and with times in ISO 8601 too."""
    if isinstance(data, list):
        return [document(item) for item in data]
    return {"schema_version": SCHEMA_VERSION, **_with_times(data)} if isinstance(data, Mapping) else data


def _with_times(data: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in data.items():
        found[key] = _inner(value)
        if key in TIMES:
            found[f"{key}_utc"] = utc_text(value) if isinstance(value, float | int) else None
    return found


def _inner(value: object) -> object:
    if isinstance(value, Mapping):
        return _with_times(value)
    return [_inner(item) for item in value] if isinstance(value, list) else value


def utc_text(seconds: float) -> str:
    """Return seconds since 1970 in ISO 8601, such as `2026-11-26T09:30:00.123456Z`."""
    return utc(seconds).isoformat(timespec="microseconds").replace("+00:00", "Z")


def cut_note(shown: int, total: int | None, what: str) -> str:
    """Return the note about a list that was cut; a `total` of None means that the number is not known."""
    how_many = f"{shown:,} of {total:,} {what}" if total is not None else f"The first {shown:,} of more {what}"
    return f"{how_many} are shown; --limit 0 shows all."
