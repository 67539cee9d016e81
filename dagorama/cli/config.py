"""The settings of client, worker and broker with their values and origins, for `dagorama config show`.

The rule: the value of a secret is never printed, only whether there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from typing import NamedTuple

import click

from dagorama.cli.base import address_options
from dagorama.cli.output import NAMED, Answer, Output, output_options, print_out
from dagorama.client.display.tables import table
from dagorama.errors import SettingsError
from dagorama.settings.listing import described_settings

#: The group of entry points by which other packages add their settings: functions without parameters that return rows
#: of (variable, value, origin).
GROUP = "dagorama.settings"

Rows = Iterable[tuple[str, object, str]]


class _Setting(NamedTuple):
    process: str  #: "client and worker", or "broker"
    setting: str  #: its variable
    value: object
    origin: str  #: "flag", "environment", "file", "dev" or "default"


@click.group()
def config() -> None:
    """Show the settings of client, worker and broker."""


@config.command()
@click.option(
    "--origin", is_flag=True, help="Also show the origin of each value: flag, environment, file, dev, default."
)
@address_options
@output_options(NAMED)
def show(origin: bool, host: str | None, port: int | None, output: Output) -> None:
    """Show each setting that processes started here would have. Secrets are not printed.

    Settings come from flags, from environment variables, and from files that variables name, in this order; the address
    of the broker also from the `dagorama dev` of this folder. --host and --port show what they would change.
    """
    found = [*_of("client and worker", lambda: described_settings(host, port)), *_of_other_packages()]
    columns = ("setting", "value", "origin", "process") if origin else ("setting", "value", "process")
    data = [
        {"process": each.process, "setting": each.setting, "value": each.value, "origin": each.origin}
        for each in found
    ]  # fmt: skip
    rows = [[_shown(record[column]) for column in columns] for record in data]
    print_out(Answer(table(columns, rows), data, names=[each.setting for each in found]), output)


def _shown(value: object) -> str:
    return "" if value is None else f"{value}"


def _of(process: str, rows: Callable[[], Rows]) -> Iterator[_Setting]:
    return (_Setting(process, *row) for row in rows())


def _of_other_packages() -> Iterator[_Setting]:
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            yield from _of(entry.name, entry.load())
        except ValueError as error:  # the SettingsError of the other package
            raise SettingsError(str(error)) from None
