"""The parts that all `dagorama` commands share: the connection, ids as arguments, the output and the error messages."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from re import fullmatch
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from dagorama.errors import BrokerError, SettingsError
from dagorama.settings import HIGHEST_PORT, Settings

if TYPE_CHECKING:
    from dagorama.client.connection import Connection

REFUSED, USAGE, INTERRUPTED = 1, 2, 130  #: exit codes

#: hexadecimal digits of a complete id, and the fewest that may stand for one
ID_DIGITS, MIN_ID_DIGITS = 32, 4


class Answer(NamedTuple):
    """The result of a command."""

    text: str  #: for people
    data: object  #: for programs: dicts, lists, texts and numbers
    note: str = ""  #: for people; printed on stderr in addition to the text or the data


def broker_command(command: Callable[..., Answer]) -> Callable[..., None]:
    """Turn a function that takes a connection first into a command with the options --host, --port and --json."""

    @functools.wraps(command)
    def asked(host: str | None, port: int | None, as_json: bool, **arguments: Any) -> None:
        print_answer(lambda broker: command(broker, **arguments), host, port, as_json)

    return broker_options("Print JSON.")(asked)


def print_answer(command: Callable[[Connection], Answer], host: str | None, port: int | None, as_json: bool) -> None:
    """Print the answer to a command; exit with a one-sentence error if there is none."""
    with report_errors():
        answer = command(connect(host, port))
    click.echo(json.dumps(answer.data, indent=2) if as_json else answer.text)
    if answer.note:
        click.echo(answer.note, err=True)


def broker_options(json_help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options --host, --port and --json, which are passed as `host`, `port` and `as_json`."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option("--json", "as_json", is_flag=True, help=json_help),
            click.option("--port", type=click.IntRange(1, HIGHEST_PORT), help="[DAGORAMA_PORT, 50051]"),
            click.option("--host", help="Address of the broker [DAGORAMA_HOST, localhost]."),
        ):
            command = option(command)
        return command

    return add


@contextmanager
def report_errors() -> Iterator[None]:
    """Exit with a one-sentence error message and an exit code instead of a traceback."""
    try:
        yield
    except BrokerError as error:
        fail(str(error), REFUSED)
    except SettingsError as error:
        fail(str(error), USAGE)


def fail(sentence: str, code: int) -> NoReturn:
    """Print an error message and exit."""
    click.echo(f"dagorama: {sentence}", err=True)
    sys.exit(code)


def connect(host: str | None, port: int | None) -> Connection:
    """Return a connection to the broker at this address, or at the one of the settings."""
    from dagorama.client.connection import Connection

    return Connection(Settings.from_env(host, port))


# --- ids as people type them ------------------------------------------------------------------------------


def id_digits(text: str) -> str:
    """Return the digits of a complete or abbreviated id, in lower case and without dashes. Raises BadParameter."""
    digits = text.strip().lower().replace("-", "")
    if not fullmatch(f"[0-9a-f]{{{MIN_ID_DIGITS},{ID_DIGITS}}}", digits):
        raise click.BadParameter(
            f"{text!r} is not an id, nor the first {MIN_ID_DIGITS} or more hexadecimal digits of one."
        )
    return digits


INSTANCE = click.argument("instance", type=id_digits)
NODES = click.argument("nodes", type=id_digits, nargs=-1, metavar="[NODE]...")


def whole_ids(broker: Connection, instance: str, nodes: Sequence[str] = ()) -> tuple[bytes, list[bytes]]:
    """Return the complete ids; the broker is called only if one of them is abbreviated. Raises BrokerError."""
    if all(len(digits) == ID_DIGITS for digits in (instance, *nodes)):
        return bytes.fromhex(instance), [bytes.fromhex(digits) for digits in nodes]
    return broker.find_ids(instance, nodes)
