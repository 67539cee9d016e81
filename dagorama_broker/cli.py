"""`dagorama-broker`: serve, check health, copy a store, accept a loss. An error is one sentence, never a traceback.

Three hidden options connect `serve` to a program that launched it: `--announce FD`, a pipe that gets one line of JSON
and stays open to the end; `--lifeline FD`, a pipe whose other end only the launcher holds; `--scratch FOLDER`, a folder
for temporary files, which is deleted at the end.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from shutil import rmtree
from threading import Thread
from time import sleep
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from dagorama_broker.environment import HIGHEST_PORT, LOG_FORMATS, LOG_LEVELS, option_name, setting_of
from dagorama_broker.errors import BindError, SettingsError, StoreError
from dagorama_broker.logging import configure
from dagorama_broker.settings import Endpoint, Settings

if TYPE_CHECKING:
    import grpc

log = logging.getLogger("dagorama_broker")

#: Seconds after which the thread of the event loop releases the GIL to the store's thread: a commit waits for the GIL
#: several times, and all calls wait for the commit.
SWITCH = 0.0005
#: Seconds that a broker has to end cleanly after its launcher has ended.
LAST_SECONDS = 5.0
#: Seconds that a broker has to answer a health check.
HEALTH_SECONDS = 3.0
#: The exit code for an invalid setting, as in sysexits.h.
BAD_CONFIG = 78

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


# --- serve ----------------------------------------------------------------------------------------------


@main.command()
@_option(Settings, "host")
@_option(Settings, "port", type=_PORT)
@_option(Settings, "store", "a file in your state folder")
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
@click.option("--announce", type=int, hidden=True)
@click.option("--lifeline", type=int, hidden=True)
@click.option("--scratch", hidden=True)
def serve(announce: int | None, lifeline: int | None, scratch: str | None, **options: Any) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    launcher = Launcher(announce, lifeline, scratch)
    try:
        settings = Settings.from_env(**options)
        configure(settings.log_level, settings.log_format)
        _serve(settings, launcher)
    except (SettingsError, StoreError, BindError) as error:
        launcher.tell(error=str(error))
        if launcher.listens:
            sys.exit(_exit_code(error))
        _fail(error)
    finally:
        launcher.clean_up()


def _serve(settings: Settings, launcher: Launcher) -> None:
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

    async def until_stopped() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        launcher.when_gone(lambda: loop.call_soon_threadsafe(stop.set))
        await serve(settings, ready, stop)

    asyncio.run(until_stopped())


class Launcher:
    """The program that launched this process; each of its three connections may be missing."""

    def __init__(self, announce: int | None = None, lifeline: int | None = None, scratch: str | None = None) -> None:
        self.listens = announce is not None
        self._announce = announce
        self._lifeline = lifeline
        self._scratch = scratch
        if scratch is not None:
            tempfile.tempdir = scratch

    def tell(self, **facts: object) -> None:
        """Send one line of JSON to the launcher, which may have ended."""
        if self._announce is not None:
            try:
                os.write(self._announce, json.dumps(facts).encode() + b"\n")
            except BrokenPipeError:
                self._announce = None

    def when_gone(self, leave: Callable[[], object]) -> None:
        """Call `leave` from a thread once the launcher has ended; kill this process if it runs some seconds later."""
        if self._lifeline is not None:
            Thread(target=self._outlive, args=(self._lifeline, leave), daemon=True).start()

    def _outlive(self, lifeline: int, leave: Callable[[], object]) -> None:
        while os.read(lifeline, 1):
            pass
        leave()
        sleep(LAST_SECONDS)
        self.clean_up()
        os._exit(1)

    def clean_up(self) -> None:
        """Delete the folder for temporary files."""
        if self._scratch is not None:
            rmtree(self._scratch, ignore_errors=True)


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

    url = store if store is None or "://" in store else f"sqlite:///{store}"
    try:
        made = back_up(Settings.from_env(store=url).store, target)
    except (SettingsError, StoreError) as error:
        _fail(error)
    click.echo(f"{made.path} (instances: {made.instances}, large values: {made.values})")
    if made.missing:
        _fail(StoreError(f"the store, and so the copy, lacks large values that nodes refer to: {made.missing} of them"))


# --- health ---------------------------------------------------------------------------------------------


class NoAnswer(Exception):
    """No broker answers at an address, or not to this caller; the message says which."""


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


def is_healthy(way: Endpoint) -> bool:
    """Return whether a broker is serving. Raise NoAnswer or SettingsError."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before gRPC is loaded: the sentence of NoAnswer is enough
    from grpc_health.v1 import health_pb2

    with _channel(way) as channel:
        # The generated stub has no types.
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        reply = check(health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS)
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def _channel(way: Endpoint) -> Iterator[grpc.Channel]:
    import grpc

    from dagorama_broker.rpc.tls import meaning

    address = f"[{way.host}]:{way.port}" if ":" in way.host else f"{way.host}:{way.port}"
    try:
        with _open(way, address) as channel:
            yield channel
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            may_want_tls = not way.tls_ca and "Socket closed" in str(error.details())
            if meant := meaning(str(error.details())):
                raise NoAnswer(f"cannot connect to a broker at {address}: {meant}") from error
            tls = ", or it requires TLS (set DAGORAMA_TLS_CA)" if may_want_tls else ""
            raise NoAnswer(f"no broker answers at {address}{tls}") from error
        raise NoAnswer(f"the server at {address} answered {error.code().name}: {error.details()}") from error


def _open(way: Endpoint, address: str) -> grpc.Channel:
    import grpc

    from dagorama_broker.rpc.tls import channel_credentials

    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if not way.tls_ca:
        return grpc.insecure_channel(address, options=options)
    if way.tls_name:
        options.append(("grpc.ssl_target_name_override", way.tls_name))
    credentials = channel_credentials(way.tls_ca, way.tls_cert, way.tls_key)
    return grpc.secure_channel(address, credentials, options=options)


# --- errors ---------------------------------------------------------------------------------------------


def _fail(error: Exception) -> NoReturn:
    """Print the sentence of an error and exit."""
    click.echo(f"dagorama-broker: {error}", err=True)
    sys.exit(_exit_code(error))


def _exit_code(error: Exception) -> int:
    return BAD_CONFIG if isinstance(error, SettingsError) else 1
