"""`dagorama pool ENGINE`: keep as many workers on an engine as the broker needs.

To add an engine, write a command with `pool_options` that gives an `Engine` to `run_pool`, and name it as an entry
point of the group `dagorama.pools`.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.metadata import entry_points
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dagorama.api.contract import MOST_SLOTS
from dagorama.cli.base import address_options, report_errors
from dagorama.cli.exit_codes import ExitCode
from dagorama.cli.parameters import Number, names_option, text
from dagorama.settings import look_at

if TYPE_CHECKING:
    from dagorama.pools.engine import Engine
    from dagorama.pools.options import PoolOptions
    from dagorama.pools.pool import Pool
    from dagorama.pools.worker_spec import WorkerSpec

F = TypeVar("F", bound=Callable[..., Any])

#: The group of entry points that name the engines.
GROUP = "dagorama.pools"
#: (flag, parameter, help) of each flag that may be repeated
_LISTS = [
    ("--include-queue", "include_queues", "QUEUE", "Its workers run only this queue."),
    ("--exclude-queue", "exclude_queues", "QUEUE", "Its workers do not run this queue."),
    ("--toleration", "tolerations", "TAINT", "Its workers tolerate this taint, besides GPU if they have one."),
    ("--import", "imports", "MODULE", "Its workers import this module before starting."),
]
#: Seconds between two looks whether a signal has come.
_SIGNAL_LOOK_S = 0.2
_SECONDS = Number(min=0, min_open=True)


class Engines(click.Group):
    """A group whose commands are entry points, which are loaded when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(entry_points(group=GROUP).names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = next(iter(entry_points(group=GROUP, name=cmd_name)), None)
        if found is None:
            return None
        try:
            command: click.Command = found.load()
        except (ImportError, AttributeError) as error:
            raise click.ClickException(f"the pool {cmd_name} cannot be loaded from {found.value}: {error}") from None
        return command


@click.group(cls=Engines)
def pool() -> None:
    """Keep as many workers on an engine as the broker needs; the engine runs them.

    The command runs until it is stopped, and starts workers for the nodes that they may run. Workers leave by
    themselves when they have had nothing to do for a while; none is stopped while it runs a node. You may kill the
    command and start it again at any time: it finds its workers by the name of the pool.
    """


def pool_options(command: F) -> F:
    """Add the options that all engines share; the fields of PoolOptions, --host, --port and --drain-on-exit."""
    command = address_options(command)
    command = click.option(
        "--drain-on-exit", is_flag=True, help="When the command is stopped, let its workers leave too."
    )(command)  # fmt: skip
    command = _demand_options(command)
    command = click.option(
        "--drain-idle", is_flag=True,
        help="Also let workers above --min leave if they were idle for five minutes; needs a token of the role reader.",
    )(command)  # fmt: skip
    command = click.option(
        "--grace", type=Number(min=0), metavar="SECONDS",
        help="Seconds that running nodes get when a worker is told to leave.  [default: DAGORAMA_GRACE, or 25]",
    )(command)  # fmt: skip
    command = click.option(
        "--idle", type=_SECONDS, default=60.0, show_default=True, metavar="SECONDS",
        help="Seconds without a node after which a worker leaves.",
    )(command)  # fmt: skip
    for names in reversed(_LISTS):
        command = names_option(*names)(command)
    return _size_options(command)


def _demand_options(command: F) -> F:
    command = click.option(
        "--share", type=Number(0, 1, min_open=True), default=1.0, show_default=True,
        help="The part of the ready work that is for this pool, if others run the same queues.",
    )(command)  # fmt: skip
    return click.option(
        "--horizon", type=Number(0.001, 86_400), default=10.0, show_default=True, metavar="SECONDS",
        help="Seconds of work for which one slot is enough.",
    )(command)  # fmt: skip


def _size_options(command: F) -> F:
    command = click.option(
        "--concurrency", type=click.IntRange(1, MOST_SLOTS), default=1, show_default=True,
        help="Child processes of each worker.",
    )(command)  # fmt: skip
    command = click.option(
        "--min", type=click.IntRange(min=0), default=0, show_default=True,
        help="Fewest workers, which stay even without work.",
    )(command)  # fmt: skip
    command = click.option(
        "--max", type=click.IntRange(min=1), default=10, show_default=True, help="Most workers."
    )(command)  # fmt: skip
    return click.option(
        "--name", type=text, metavar="NAME",
        help="Name of the pool, by which it finds its workers.  [default: the engine's name]",
    )(command)  # fmt: skip


def options_of(engine: str, flags: dict[str, Any]) -> PoolOptions:
    """Take the fields of PoolOptions, --host and --port from the flags. Raise UsageError or SettingsError."""
    from dagorama.pools.options import PoolOptions

    look_at(flags.pop("host"), flags.pop("port"))
    names = [each.name for each in fields(PoolOptions)]
    found = {name: flags.pop(name) for name in names if name in flags}
    found["name"] = found["name"] or engine
    try:
        return PoolOptions(**found)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def run_pool(
    engine: Engine, options: PoolOptions, worker: WorkerSpec | None = None, drain_on_exit: bool = False
) -> None:  # fmt: skip
    """Run a pool until SIGTERM or Ctrl-C. Exit with a sentence if it cannot go on; at once on a second signal."""
    from dagorama.pools.pool import Pool

    with report_errors():
        made = Pool(engine, options, worker, _say)
        _run_until_signal(made)
        if drain_on_exit:
            _say(f"pool {options.name}: stops, and lets its workers leave", False)
            made.drain()
        else:
            _say(f"pool {options.name}: stops; its workers stay until they are idle", False)


def _run_until_signal(made: Pool) -> None:
    """Run a pool in a thread. Handlers of signals run in this one, which holds no lock of the pool."""
    asked, errors = list[int](), list[BaseException]()

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            sys.exit(ExitCode.INTERRUPTED)
        asked.append(number)

    def run() -> None:
        try:
            made.run()
        except BaseException as error:
            errors.append(error)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    thread = threading.Thread(target=run, name="dagorama-pool", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_SIGNAL_LOOK_S)
        if asked:
            made.stop()
    for error in errors:
        raise error


def warn_of_local_address(where: Sequence[str]) -> None:
    """Say that the broker's address is for this machine only, if workers may run on others, as `where` names them."""
    from dagorama.client.addresses import hosts_elsewhere
    from dagorama.settings import Settings

    settings = Settings.from_env()
    if where and not hosts_elsewhere(settings):
        _say(
            f"the broker's address is {settings.host}, which workers on other machines cannot reach: set DAGORAMA_HOST"
            " to its name in the network",
            True,
        )


def _say(text: str, is_warning: bool) -> None:
    click.echo(f"warning: {text}" if is_warning else text, err=True)
