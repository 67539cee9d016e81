"""The `worker` command: parse the flags, run a worker until it is told to stop, and exit with its code.

`dagorama.cli:worker` is also the import path of dagorama 0.1.10. The `dagorama` command is in `dagorama.__main__`.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from fcntl import F_GETFL, fcntl
from importlib import import_module
from math import isfinite
from typing import Any, TypeVar

import click

from dagorama.api.contract import MOST_SLOTS
from dagorama.cli.parameters import Number, current_folder, filled, names_option, text
from dagorama.errors import SettingsError
from dagorama.settings import HIGHEST_PORT, Settings, WorkerOptions, look_at
from dagorama.settings.hosts import checked_host
from dagorama_monitoring.documentation import with_address
from dagorama_monitoring.process.streams import open_standard_streams

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds without a node after which a worker with `--until idle` leaves.
IDLE_S = 60.0
_LAST_DESCRIPTOR = 2**31 - 1
STDERR = 2  #: the last descriptor of the standard streams, which programs of nodes inherit

#: (flag, parameter, help) of each flag that may be repeated
_LISTS = [
    ("--include-queue", "include_queues", "QUEUE", "Run only nodes of this queue."),
    ("--exclude-queue", "exclude_queues", "QUEUE", "Run no nodes of this queue."),
    ("--toleration", "tolerations", "TAINT", "Also run nodes with this taint."),
    ("--import", "imports", "MODULE", "Import this module before starting, for example to register definitions."),
]


def worker_flags(command: F) -> F:
    """Add the flags of every command that starts workers: the broker's address and the fields of WorkerOptions."""
    command = click.version_option(package_name="dagorama")(command)
    command = click.option(
        "--port", type=click.IntRange(1, HIGHEST_PORT), help="Port of the broker [DAGORAMA_PORT, 50051]."
    )(command)
    command = click.option(
        "--host",
        help="Address of the broker, or several, separated by commas [DAGORAMA_HOST, localhost].",
    )(command)
    command = _leaving_flags(command)
    command = click.option(
        "--only-imported", is_flag=True, help="Run only definitions of the modules given with --import."
    )(command)
    command = click.option(
        "--concurrency",
        type=click.IntRange(1, MOST_SLOTS),
        default=1,
        show_default=True,
        help="Number of child processes.",
    )(command)
    command = click.option(
        "--health-host", default="127.0.0.1", show_default=True, help="Address of the HTTP ports."
    )(command)  # fmt: skip
    command = click.option(
        "--metrics-port", type=click.IntRange(0, HIGHEST_PORT), metavar="PORT",
        help="Serve /metrics over HTTP on this port; 0 takes any free port.",
    )(command)  # fmt: skip
    command = click.option(
        "--health-port", type=click.IntRange(0, HIGHEST_PORT), metavar="PORT",
        help="Serve /livez and /readyz over HTTP on this port; 0 takes any free port.",
    )(command)  # fmt: skip
    command = click.option(
        "--capture", type=click.Choice(["python", "fd"]), default="python", show_default=True,
        help="Output that the logs of nodes capture: only of Python code, or also of C code and subprocesses.",
    )(command)  # fmt: skip
    command = click.option(
        "--name", type=text, default="", help="Name of the worker in `dagorama workers`.  [default: HOST:PID]"
    )(command)  # fmt: skip
    for names in reversed(_LISTS):
        command = names_option(*names)(command)
    return command


def _leaving_flags(command: F) -> F:
    """Add the flags about when a worker leaves."""
    command = click.option(
        "--lifetime", type=Number(min=0, min_open=True), metavar="SECONDS",
        help="Take no more nodes when a node of the usual run time would end after this time, finish the running nodes "
        "however long they take, and exit.",
    )(command)  # fmt: skip
    command = click.option(
        "--idle", type=Number(min=0, min_open=True), metavar="SECONDS",
        help=f"For --until idle: seconds without a node to run.  [default: {IDLE_S:g}]",
    )(command)  # fmt: skip
    command = click.option(
        "--until", type=click.Choice(["idle", "drained"]),
        help="Exit when it has had nothing to do for a while (idle), or as --exit-on-completion does (drained).",
    )(command)  # fmt: skip
    command = click.option(
        "--exit-on-completion", is_flag=True,
        help="Exit when no node is left that this worker could run. The exit code is 3 if its queues still hold nodes "
        "that no connected worker can run.",
    )(command)  # fmt: skip
    return click.option(
        "--grace", type=Number(min=0), metavar="SECONDS",
        help="Seconds that running nodes get to finish on shutdown.  [default: DAGORAMA_GRACE, or 25]",
    )(command)  # fmt: skip


@click.command()
@click.option(
    "--lifeline", type=click.IntRange(0, _LAST_DESCRIPTOR), metavar="FD",
    help="Exit at once when the other end of this pipe or socket, which it inherits, is closed.",
)  # fmt: skip
@click.option("--reload", is_flag=True, help="Restart the worker when a file changes; for development.")
@click.option(
    "--watch-dir", type=click.Path(exists=True, file_okay=False),
    help="For --reload: the folder to watch, with its subfolders.  [default: .]",
)  # fmt: skip
@click.option(
    "--watch-pattern", type=filled, metavar="GLOB",
    help="For --reload: restart only if the name of the file matches, for example '*.py'.  [default: *]",
)  # fmt: skip
@worker_flags
def worker(reload: bool, watch_dir: str | None, watch_pattern: str | None, **flags: Any) -> None:
    """Run nodes for the broker at --host and --port, or DAGORAMA_HOST and DAGORAMA_PORT.

    On SIGTERM or Ctrl-C, finish running nodes within the grace period, return the other nodes, and exit. On a second
    signal, exit immediately.
    """
    if (watch_dir is not None or watch_pattern is not None) and not reload:
        raise click.UsageError(f"{'--watch-pattern' if watch_dir is None else '--watch-dir'} needs --reload")
    if reload and flags["lifeline"] is not None:
        raise click.UsageError("--lifeline contradicts --reload")
    options = ready_options(flags)
    if reload:
        # Imported by name, because it is in a layer above this one.
        import_module("dagorama.hot_reload").reload_worker(watch_dir or ".", options, watch_pattern or "*")
        return
    sys.path.insert(0, current_folder())  # as `python -m` would
    from dagorama.worker.main import run_worker

    try:
        code = run_worker(options)
    except SettingsError as error:  # the system allows too little
        raise click.UsageError(with_address(error)) from None
    sys.exit(code)


def ready_options(flags: dict[str, Any]) -> WorkerOptions:
    """Check the values of `worker_flags`, apply --host and --port to this process, and return the rest as options.

    Exit with a one-sentence error and code 2 if the flags contradict each other or the environment is invalid.
    """
    open_standard_streams()
    host, port = flags.pop("host"), flags.pop("port")
    if flags["only_imported"] and not flags["imports"]:
        raise click.UsageError("--only-imported without --import would run nothing")
    for name in ("grace", "idle", "lifetime"):
        if not isfinite(flags[name] or 0):
            raise click.UsageError(f"--{name} {flags[name]}: must be a number of seconds")
    _apply_until(flags)
    _check_lifeline(flags.get("lifeline"))
    _check_settings(host, port, flags["health_host"])
    return WorkerOptions(captures_output=flags.pop("capture") == "fd", **flags)


def _apply_until(flags: dict[str, Any]) -> None:
    """Replace `until` by the options that it stands for. Raise UsageError if other flags contradict it."""
    until = flags.pop("until")
    if flags["idle"] is not None and until != "idle":
        raise click.UsageError("--idle needs --until idle")
    if until == "idle" and flags["exit_on_completion"]:
        raise click.UsageError("--until idle contradicts --exit-on-completion, which is --until drained")
    if until == "idle" and flags["idle"] is None:
        flags["idle"] = IDLE_S
    flags["exit_on_completion"] = flags["exit_on_completion"] or until == "drained"


def _check_lifeline(descriptor: int | None) -> None:
    """Raise UsageError unless the descriptor can be waited for; keep it from programs that nodes run."""
    if descriptor is None:
        return
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        raise click.UsageError(
            f"--lifeline {descriptor}: it is not open; the starting process must pass it on"
        ) from None
    is_read = stat.S_ISSOCK(mode) or fcntl(descriptor, F_GETFL) & os.O_ACCMODE != os.O_WRONLY
    if not is_read or not (stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)):
        raise click.UsageError(f"--lifeline {descriptor}: it must be the end for reading of a pipe, or a socket")
    if descriptor > STDERR:
        os.set_inheritable(descriptor, False)


def _check_settings(host: str | None, port: int | None, health_host: str) -> None:
    from dagorama.client.channel import check
    from dagorama.settings import broker_wait, captured_log_level, captures_logs, local_socket, shared_files, traces
    from dagorama.settings.values import values_patience, values_transfer
    from dagorama.values.signing import keyring

    try:
        look_at(host, port)
        checked_host(health_host, "--health-host")
        check(Settings.from_env())
        broker_wait()
        shared_files()
        local_socket()
        captures_logs()
        captured_log_level()
        traces()
        values_patience()
        values_transfer()
        keyring()
    except SettingsError as error:
        raise click.UsageError(with_address(error)) from None
