"""`dagorama-broker`: serve, check health, copy a store, accept a loss. An error is one sentence, never a traceback.

Three hidden options connect `serve` to a program that launched it: `--announce FD`, a pipe that gets one line of JSON
and stays open to the end; `--lifeline FD`, a pipe whose other end only the launcher holds; `--scratch FOLDER`, a folder
for temporary files, which is deleted at the end.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from dagorama_broker.cli.health import NoAnswer, is_healthy
from dagorama_broker.cli.launcher import Launcher
from dagorama_broker.environment import HIGHEST_PORT, LOG_FORMATS, LOG_LEVELS, option_name, setting_of
from dagorama_broker.errors import BindError, Deposed, SettingsError, StoreError
from dagorama_broker.logging import configure
from dagorama_broker.settings import Endpoint, Settings
from dagorama_monitoring.documentation import with_address
from dagorama_monitoring.process.resource_limits import refusal_of_address_space
from dagorama_monitoring.process.streams import open_standard_streams

if TYPE_CHECKING:
    from dagorama_broker.cli.dashboard import Dashboard
    from dagorama_broker.store.sqlite.backup import Backup

log = logging.getLogger("dagorama_broker")

#: Seconds after which the thread of the event loop releases the GIL to the store's thread: a commit waits for the GIL
#: several times, and all calls wait for the commit.
SWITCH = 0.0005
#: The exit code for an invalid setting, as in sysexits.h.
BAD_CONFIG = 78
#: Exit code of a broker that another one has replaced. Its service manager starts it again, as a standby.
DEPOSED = 3

C = TypeVar("C", bound=Callable[..., Any])
_PORT = click.IntRange(0, HIGHEST_PORT)
_LEVEL = click.Choice(LOG_LEVELS, case_sensitive=False)
_FORMAT = click.Choice(LOG_FORMATS, case_sensitive=False)


def _option(kind: type[Settings | Endpoint], name: str, unset: object = None, **more: Any) -> Callable[[C], C]:
    """Make a field of `kind` an option. `unset` is shown in the help instead of the default of the field."""
    (declared,) = [each for each in fields(kind) if each.name == name]
    variable, _, text = setting_of(declared)
    default = unset or declared.default
    shown = f"{variable}, {default}" if default else variable
    return click.option(option_name(name), help=f"{text} [{shown}].", **more)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dagorama", prog_name="dagorama-broker")
def main() -> None:
    """Run the broker of dagorama, which holds the graph whose nodes workers run."""
    open_standard_streams()


# --- serve ----------------------------------------------------------------------------------------------


@main.command()
@_option(Settings, "host")
@_option(Settings, "port", type=_PORT)
@_option(Settings, "store", "a file in your state folder")
@_option(Settings, "values")
@_option(Settings, "log_level", type=_LEVEL)
@_option(Settings, "log_format", type=_FORMAT)
@_option(Settings, "insecure", is_flag=True, default=None)
@_option(Settings, "tokens")
@_option(Settings, "tls_cert")
@_option(Settings, "tls_key")
@_option(Settings, "tls_client_ca")
@_option(Settings, "health_port", type=_PORT)
@_option(Settings, "metrics_port", type=_PORT)
@_option(Settings, "health_host")
@click.option("--dashboard", is_flag=True, help="Also run the dashboard, as a process that ends with this one.")
@click.option(
    "--dashboard-port", type=_PORT, help="For --dashboard: port of its pages [DAGORAMA_DASHBOARD_PORT, 8088]."
)
@click.option("--announce", type=int, hidden=True)
@click.option("--lifeline", type=int, hidden=True)
@click.option("--scratch", hidden=True)
def serve(
    dashboard: bool, dashboard_port: int | None, announce: int | None, lifeline: int | None, scratch: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Serve until SIGTERM or Ctrl-C."""
    if dashboard_port is not None and not dashboard:
        raise click.UsageError("--dashboard-port needs --dashboard")
    launcher = Launcher(announce, lifeline, scratch)
    try:
        settings = Settings.from_env(**options)
        configure(settings.log_level, settings.log_format)
        _serve(settings, launcher, _dashboard(settings, dashboard_port) if dashboard else None)
    except (SettingsError, StoreError, BindError) as error:
        launcher.tell(error=str(error))
        if launcher.listens:
            sys.exit(_exit_code(error))
        _fail(error)
    finally:
        launcher.clean_up()


def _dashboard(settings: Settings, http_port: int | None) -> Dashboard:
    from dagorama_broker.cli.dashboard import Dashboard

    return Dashboard(settings, http_port)


def _serve(settings: Settings, launcher: Launcher, dashboard: Dashboard | None) -> None:
    if refusal := refusal_of_address_space("a broker"):
        raise SettingsError(refusal)
    # gRPC would log a port that is in use, in addition to our own sentence. Our client sets ERROR, and a broker that a
    # script launches inherits that.
    if os.environ.get("GRPC_VERBOSITY", "ERROR") == "ERROR":
        os.environ["GRPC_VERBOSITY"] = "NONE"
    import asyncio

    sys.setswitchinterval(SWITCH)
    from dagorama_broker.engine.turns import collect_young_only
    from dagorama_broker.server import Served, serve

    collect_young_only()

    def ready(served: Served) -> None:
        log.info("%s", served)
        if settings.lacks:
            log.warning(
                "INSECURE: %s:%d is served to other machines without %s", served.host, served.port, settings.lacks
            )
        launcher.tell(port=served.port, store=served.store)
        if dashboard is not None:
            dashboard.start(served.port)

    async def until_stopped() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        launcher.when_gone(lambda: loop.call_soon_threadsafe(stop.set))
        try:
            await serve(settings, ready, stop)
        finally:
            if dashboard is not None:
                await dashboard.stop()

    asyncio.run(until_stopped())


# --- accept-loss ----------------------------------------------------------------------------------------


@main.command("accept-loss")
@_option(Settings, "store", "a file in your state folder")
def accept_loss(store: str | None) -> None:
    """Let a broker start on a store that lacks acknowledged work, such as an older copy of it.

    Run it if a start was refused for that reason and the missing files cannot be restored. No broker may be running.
    """
    from dagorama_broker.store import accept_loss

    try:
        lost = accept_loss(Settings.from_env(store=store).store)
    except (SettingsError, StoreError) as error:
        _fail(error)
    done = f"accepted: {lost}; the next start continues without it" if lost else "nothing is missing from this store"
    click.echo(done)


# --- backup ---------------------------------------------------------------------------------------------


@main.command()
@click.argument("target", type=click.Path(path_type=Path))
@_option(Settings, "store", "a file in your state folder")
def backup(target: Path, store: str | None) -> None:
    """Copy the store and its large values to the file TARGET and the folder TARGET.values, while a broker serves it.

    The copy is a store: `dagorama-broker serve --store sqlite:///TARGET` starts with it. On the same file system large
    values are linked instead of copied.
    """
    from dagorama_broker.store import back_up

    settings = _store_settings(store, None)
    _print_copy("the store, and so the copy,", lambda: back_up(settings.store, target, settings.values))


def _store_settings(store: str | None, values: str | None) -> Settings:
    """Return the settings for a command whose option names a store by its URL or by its file."""
    url = store if store is None or "://" in store else f"sqlite:///{store}"
    try:
        return Settings.from_env(store=url, values=values)
    except SettingsError as error:
        _fail(error)


def _print_copy(what: str, make: Callable[[], Backup]) -> None:
    """Make a copy and print what it has; exit with 1 if `what` lacks large values."""
    try:
        made = make()
    except (SettingsError, StoreError) as error:
        _fail(error)
    click.echo(f"{made.path} (instances: {made.instances}, large values: {made.values})")
    if made.missing:
        _fail(StoreError(f"{what} lacks large values that nodes refer to: {made.missing} of them"))


# --- restore --------------------------------------------------------------------------------------------


@main.command()
@click.argument("copy", type=click.Path(path_type=Path))
@_option(Settings, "store", "a file in your state folder")
@_option(Settings, "values")
def restore(copy: Path, store: str | None, values: str | None) -> None:
    """Create a store from the file COPY and the folder COPY.values, which `backup` has written.

    There must be no such store yet. The copy is checked first, and stays as it is. Results of workers that still run
    nodes of the lost time are refused.
    """
    from dagorama_broker.store import restore

    settings = _store_settings(store, values)
    _print_copy("the copy", lambda: restore(copy, settings.store, settings.values))


# --- copy -----------------------------------------------------------------------------------------------


@main.command()
@click.option("--from", "source", required=True, metavar="URL", help="Store to copy.")
@click.option("--to", "target", required=True, metavar="URL", help="Empty store to copy to.")
@click.option(
    "--from-values", default="", metavar="URL", help="Its large values, file:///FOLDER or s3://BUCKET/PREFIX."
)
@click.option("--to-values", default="", metavar="URL", help="Place of the large values of the copy.")
def copy(source: str, target: str, from_values: str, to_values: str) -> None:
    """Copy a store to another database, for example from SQLite to PostgreSQL.

    No broker may use either of them. Every row is compared with its checksum. A broker that is started with the copy
    continues the work of the first store.
    """
    from dagorama_broker.store import copy_store

    try:
        rows = copy_store((source, from_values), (target, to_values))
    except (SettingsError, StoreError) as error:
        _fail(error)
    click.echo(f"copied {rows:,} rows")


# --- health ---------------------------------------------------------------------------------------------


@main.command()
@_option(Endpoint, "host")
@_option(Endpoint, "port", type=_PORT)
@_option(Endpoint, "tls_ca")
@_option(Endpoint, "tls_cert")
@_option(Endpoint, "tls_key")
@_option(Endpoint, "tls_name")
def health(**options: Any) -> None:
    """Exit 0 if the broker is serving, 1 otherwise. `dagorama status` shows more."""
    try:
        healthy = is_healthy(Endpoint.from_env(**options))
    except (NoAnswer, SettingsError) as error:
        _fail(error)
    click.echo("serving" if healthy else "not serving")
    sys.exit(0 if healthy else 1)


# --- errors ---------------------------------------------------------------------------------------------


def _fail(error: Exception) -> NoReturn:
    """Print the sentence of an error, and where it is documented, and exit."""
    click.echo(f"dagorama-broker: {with_address(error)}", err=True)
    sys.exit(_exit_code(error))


def _exit_code(error: Exception) -> int:
    if isinstance(error, Deposed):
        return DEPOSED
    return BAD_CONFIG if isinstance(error, SettingsError) else 1
