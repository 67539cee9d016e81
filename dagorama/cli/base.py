"""What all commands share: which broker is asked, how the answer is printed, and how a mistake is said."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from dagorama.errors import BrokerError, SettingsError
from dagorama.settings import HIGHEST_PORT, Settings

if TYPE_CHECKING:
    from dagorama.client.connection import Connection

REFUSED, USAGE = 1, 2  #: exit codes


class Answer(NamedTuple):
    """What a command found or did."""

    text: str  #: for people
    data: object  #: for programs: dicts, lists, texts and numbers
    note: str = ""  #: for people, beside either, on stderr


def asking(command: Callable[..., Answer]) -> Callable[..., None]:
    """Makes a command of a function that is given the connection first: options say which broker, and how to print."""

    @functools.wraps(command)
    def asked(host: str | None, port: int | None, as_json: bool, **arguments: Any) -> None:
        with said_plainly():
            answer = command(_connect(host, port), **arguments)
        click.echo(json.dumps(answer.data, indent=2) if as_json else answer.text)
        if answer.note:
            click.echo(answer.note, err=True)

    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--port", type=click.IntRange(1, HIGHEST_PORT), help="[DAGORAMA_PORT, 50051]"),
        click.option("--host", help="Where the broker is [DAGORAMA_HOST, localhost]."),
    ):
        asked = option(asked)
    return asked


@contextmanager
def said_plainly() -> Iterator[None]:
    """A mistake ends the program with one sentence and its exit code, never a traceback."""
    try:
        yield
    except BrokerError as error:
        fail(str(error), REFUSED)
    except SettingsError as error:
        fail(str(error), USAGE)


def fail(sentence: str, code: int) -> NoReturn:
    click.echo(f"dagorama: {sentence}", err=True)
    sys.exit(code)


def _connect(host: str | None, port: int | None) -> Connection:
    from dagorama.client.connection import Connection

    return Connection(Settings.from_env(host, port))
