"""`dagorama dev`: broker, workers and dashboard for one folder, in one terminal, with one Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from contextlib import closing
from pathlib import Path
from socket import SO_REUSEADDR, SOL_SOCKET, socket

import click

from dagorama.cli.base import fail
from dagorama.cli.dev.data import STORE, AddressFile, Unusable, make_folder, prepare_store
from dagorama.cli.dev.roles import Plan
from dagorama.cli.dev.session import Session
from dagorama.cli.dev.target import find_target
from dagorama.cli.exit_codes import ExitCode
from dagorama.cli.parameters import filled
from dagorama.dev_address import FOLDER, HOST
from dagorama.settings import HIGHEST_PORT, Settings, names_a_broker

#: The ports that are used if none is given and they are free.
BROKER_PORT, HTTP_PORT = 50051, 8088
#: The most processes of one worker that make sense to ask for here.
_MOST_WORKERS = 1000
_PORT = click.IntRange(0, HIGHEST_PORT)


@click.command()
@click.argument("target", type=filled, required=False, metavar="[TARGET]")
@click.option(
    "--workers", type=click.IntRange(0, _MOST_WORKERS), default=2, show_default=True,
    help="Number of processes that run nodes.",
)  # fmt: skip
@click.option(
    "--port", type=_PORT, envvar="DAGORAMA_PORT",
    help="Port of the broker; 0 takes any free port  [DAGORAMA_PORT, 50051, or any free one if that is in use].",
)  # fmt: skip
@click.option(
    "--http-port", type=_PORT, envvar="DAGORAMA_DASHBOARD_PORT",
    help="Port of the dashboard  [DAGORAMA_DASHBOARD_PORT, 8088, or any free one if that is in use].",
)  # fmt: skip
@click.option(
    "--store", type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the data of the broker  [default: .dagorama next to TARGET].",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Delete the data of earlier runs first.")
def dev(
    target: str | None, workers: int, port: int | None, http_port: int | None, store: Path | None, fresh: bool
) -> None:
    """Run a broker, workers and the dashboard for TARGET until Ctrl-C: for development.

    TARGET is a file such as app.py, a module such as package.app, or a folder; the default is the current folder.
    Workers import the module when they start, and other modules when nodes need them. They restart when a Python file
    in the folder changes, and the findings of `dagorama check` are printed. The broker keeps its data in .dagorama next
    to the file.

    Programs and commands that are started in the folder, or below it, find this broker by themselves, unless
    DAGORAMA_HOST or DAGORAMA_PORT is set.
    """
    found = find_target(target)
    try:
        address = AddressFile(found.folder)
        folder = make_folder(store.absolute()) if store is not None else found.folder / FOLDER
        prepare_store(folder / STORE, fresh)
        broker_port = _port("--port", port, BROKER_PORT)
        plan = Plan(found, folder, workers, broker_port, _port("--http-port", http_port, HTTP_PORT))
    except Unusable as error:
        fail(f"{error}", ExitCode.REFUSED)
    with closing(address):
        sys.exit(asyncio.run(Session(plan, address, _notes(plan, port)).run()))


def _port(option: str, asked: int | None, default: int) -> int:
    """Return the port to use, 0 for any free one. Raises Unusable if the one that was asked for is in use."""
    if asked is None:
        return default if _is_free(default) else 0
    if asked and not _is_free(asked):
        raise Unusable(f"port {asked} of {HOST} is in use: choose another {option}, or 0 for any free one")
    return asked


def _is_free(port: int) -> bool:
    with socket() as probe:
        probe.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)  # as servers do: connections that have ended do not count
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _is_named(plan: Plan) -> bool:
    """Return whether the variables of this process name the broker of the plan. Raises SettingsError."""
    if not plan.port:
        return False
    named = Settings.from_env()
    return named.host in ("localhost", HOST) and named.port == plan.port and not named.tls_ca


def _notes(plan: Plan, port: int | None) -> tuple[str, ...]:
    """Return what a user may not expect."""
    notes = []
    if port is None and not plan.port:
        notes.append(
            f"port {BROKER_PORT} is in use, so the broker uses another one; programs started in {plan.target.folder} "
            "find it, for others set DAGORAMA_PORT"
        )
    if (variable := names_a_broker()) and not _is_named(plan):
        notes.append(f"{variable} is set here: programs started with it use the broker that it names, not this one")
    return tuple(notes)
