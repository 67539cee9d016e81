"""`dagorama-broker`: serve, and tell whether one serves. A mistake is answered with one sentence, never a traceback."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click

from dagorama_broker.control_pipe import Launcher
from dagorama_broker.errors import CannotServe, SettingsError, StoreError
from dagorama_broker.logging import configure
from dagorama_broker.settings import HIGHEST_PORT, LOG_FORMATS, LOG_LEVELS, Settings, Way

log = logging.getLogger("dagorama_broker")

#: Seconds after which the loop's thread lets the store's have the interpreter: a commit waits for it several times, and
#: everybody for the commit.
SWITCH = 0.0005

_PORT = click.IntRange(0, HIGHEST_PORT)
_LEVEL = click.Choice(LOG_LEVELS, case_sensitive=False)
_FORMAT = click.Choice(LOG_FORMATS, case_sensitive=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dagorama", prog_name="dagorama-broker")
def main() -> None:
    """The broker of dagorama: it holds the graph, workers run the nodes."""


# --- serve ----------------------------------------------------------------------------------------------


@main.command()
@click.option("--host", help="Address to listen on [DAGORAMA_BIND, 127.0.0.1]; beyond this machine tokens and TLS.")
@click.option("--port", type=_PORT, help="Port to listen on, 0 for any free one [DAGORAMA_PORT, 50051].")
@click.option("--store", help="sqlite:///PATH or memory:// [DAGORAMA_STORE, a file in your state folder].")
@click.option("--log-level", type=_LEVEL, help="[DAGORAMA_LOG_LEVEL, INFO]")
@click.option("--log-format", type=_FORMAT, help="[DAGORAMA_LOG_FORMAT, text]")
@click.option("--insecure", is_flag=True, default=None, help="Serve other machines without tokens and TLS.")
@click.option("--tokens", help="A file of those who may call; see `dagorama tokens new` [DAGORAMA_TOKENS_FILE].")
@click.option("--tls-cert", help="Serve TLS with this certificate, a PEM file [DAGORAMA_BROKER_TLS_CERT].")
@click.option("--tls-key", help="The key of that [DAGORAMA_BROKER_TLS_KEY].")
@click.option("--tls-client-ca", help="Want a certificate of this authority [DAGORAMA_BROKER_TLS_CLIENT_CA].")
@click.option("--announce", type=int, hidden=True, help="See `launched`, as for the next two.")
@click.option("--lifeline", type=int, hidden=True)
@click.option("--scratch", hidden=True)
def serve(announce: int | None, lifeline: int | None, scratch: str | None, **options: Any) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    launcher = Launcher(announce, lifeline, scratch)
    try:
        settings = Settings.from_env(**options)
        configure(settings.log_level, settings.log_format)
        _serve(settings, launcher)
    except (SettingsError, StoreError, CannotServe) as error:
        launcher.tell(error=str(error))
        if not launcher.listens:
            click.echo(f"dagorama-broker: {error}", err=True)
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    finally:
        launcher.clean_up()


def _serve(settings: Settings, launcher: Launcher) -> None:
    # What gRPC writes about a port that is taken would stand beside our sentence. ERROR is what our own client sets,
    # which a broker that a script launches inherits.
    if os.environ.get("GRPC_VERBOSITY", "ERROR") == "ERROR":
        os.environ["GRPC_VERBOSITY"] = "NONE"
    import asyncio

    sys.setswitchinterval(SWITCH)
    from dagorama_broker.engine.garbage import collect_young_only
    from dagorama_broker.server import Served, serve

    collect_young_only()

    def ready(served: Served) -> None:
        log.info("%s", served)
        if settings.lacks:
            log.warning(
                "INSECURE: %s:%d is served to other machines without %s", served.host, served.port, settings.lacks
            )
        launcher.tell(port=served.port, store=served.store)

    async def until_told() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        launcher.when_gone(lambda: loop.call_soon_threadsafe(stop.set))
        await serve(settings, ready, stop)

    asyncio.run(until_told())


@main.command("accept-loss")
@click.option("--store", help="sqlite:///PATH [DAGORAMA_STORE, a file in your state folder].")
def accept_loss(store: str | None) -> None:
    """Let a broker start on a store that lacks acknowledged work, such as an older copy of it.

    Run it when a start was refused for that reason, and the missing files cannot be put back. No broker may be running.
    """
    from dagorama_broker.store import accept_loss

    try:
        settings = Settings.from_env(store=store)
        lost = accept_loss(settings.store)
    except (SettingsError, StoreError) as error:
        click.echo(f"dagorama-broker: {error}", err=True)
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    click.echo(f"accepted: {lost}; the next start goes on without it" if lost else "nothing is missing from this store")


# --- asking a broker ------------------------------------------------------------------------------------


@main.command()
@click.option("--host", help="Where the broker is [DAGORAMA_HOST, 127.0.0.1].")
@click.option("--port", type=_PORT, help="[DAGORAMA_PORT, 50051]")
@click.option("--tls-ca", help="Authorities that its certificate may come from [DAGORAMA_TLS_CA]; turns TLS on.")
@click.option("--tls-cert", help="A certificate to present, where it wants one [DAGORAMA_TLS_CERT].")
@click.option("--tls-key", help="The key of that [DAGORAMA_TLS_KEY].")
@click.option("--tls-name", help="The name in its certificate, where it is not its host [DAGORAMA_TLS_NAME].")
def health(**way: Any) -> None:
    """Ends with 0 when the broker serves, with 1 when it does not. `dagorama status` says more."""
    from dagorama_broker.health_check import NoAnswer, is_healthy

    try:
        healthy = is_healthy(Way.from_env(**way))
    except (NoAnswer, SettingsError) as error:
        click.echo(f"dagorama-broker: {error}", err=True)
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    click.echo("serving" if healthy else "not serving")
    sys.exit(0 if healthy else 1)
