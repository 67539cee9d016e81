"""The `worker` command: flags in, a worker until it is told to leave, its exit code out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from math import isfinite
from typing import Any, TypeVar

import click

from dagorama.errors import SettingsError
from dagorama.settings import HIGHEST_PORT, Settings, WorkerOptions, look_at

F = TypeVar("F", bound=Callable[..., Any])

#: (flag, parameter, help) of what may be given several times
_LISTS = [
    ("--include-queue", "include_queues", "Run nodes of this queue, and of no others that are not included too."),
    ("--exclude-queue", "exclude_queues", "Run no nodes of this queue."),
    ("--toleration", "tolerations", "Run nodes with this taint too."),
    ("--import", "imports", "Import this module first, for what it registers."),
]


def worker_flags(command: F) -> F:
    """The flags of each command that starts workers: which broker, and what makes WorkerOptions."""
    command = click.version_option(package_name="dagorama")(command)
    command = click.option("--port", type=click.IntRange(1, HIGHEST_PORT), help="[DAGORAMA_PORT, 50051]")(command)
    command = click.option("--host", help="Where the broker is [DAGORAMA_HOST, localhost].")(command)
    command = click.option(
        "--exit-on-completion", is_flag=True,
        help="Leave when nothing is left that this worker could ever run; with exit code 3 if queued nodes of its "
        "queues are left that no connected worker may run.",
    )(command)  # fmt: skip
    command = click.option(
        "--only-imported", is_flag=True, help="Run definitions of the modules given with --import, and no others."
    )(command)
    command = click.option(
        "--concurrency", type=click.IntRange(min=1), default=1, show_default=True, help="Child processes."
    )(command)
    command = click.option(
        "--grace", type=click.FloatRange(min=0), metavar="SECONDS",
        help="How long what runs may go on when it is told to leave.  [default: DAGORAMA_GRACE, or 25]",
    )(command)  # fmt: skip
    for flag, parameter, text in reversed(_LISTS):
        command = click.option(flag, parameter, multiple=True, help=f"{text} May be repeated.")(command)
    return command


@click.command()
@worker_flags
def worker(**flags: Any) -> None:
    """Run nodes for the broker at --host and --port, or DAGORAMA_HOST and DAGORAMA_PORT.

    SIGTERM or Ctrl-C: finish what runs within the grace, return the rest, leave. A second one: leave at once.
    """
    options = ready_options(flags)
    sys.path.insert(0, os.getcwd())  # what `python -m` would do
    from dagorama.worker.main import run_worker

    sys.exit(run_worker(options))


def ready_options(flags: dict[str, Any]) -> WorkerOptions:
    """What `worker_flags` were given, for a process that is set up to run it.

    Ends with one sentence and exit code 2 if the flags make no sense together, or the environment cannot be used.
    """
    host, port = flags.pop("host"), flags.pop("port")
    if flags["only_imported"] and not flags["imports"]:
        raise click.UsageError("--only-imported without --import would run nothing")
    if not isfinite(flags["grace"] or 0):
        raise click.UsageError(f"--grace {flags['grace']}: it has to be a number of seconds")
    _check_settings(host, port)
    return WorkerOptions(**flags)


def _check_settings(host: str | None, port: int | None) -> None:
    from dagorama.client.channel import check
    from dagorama.settings import shared_files
    from dagorama.values.signing import keyring

    try:
        look_at(host, port)
        check(Settings.from_env())
        shared_files()
        keyring()
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
