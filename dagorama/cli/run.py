"""Start an instance of a definition and wait for its result, for `dagorama run`.

The rule: the result goes to standard output, progress and words to standard error.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from inspect import isawaitable
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dagorama.cli.arguments import WrongArguments, read_arguments
from dagorama.cli.base import PREFIX_DIGITS, address_options, fail, node_names
from dagorama.cli.exit_codes import ExitCode
from dagorama.cli.loading import load_definition, make_definition, print_user_traceback
from dagorama.cli.output import NAMED, Answer, Output, output_options, print_out
from dagorama.errors import BrokerError, DagoramaError, NodeFailed
from dagorama.models.promise import DAGPromise
from dagorama.settings import look_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagorama.client.progress import Watch
    from dagorama.definition import DAGDefinition, DAGInstance

#: Seconds that the last state of the progress may take after the result is there.
LAST_LOOK_S = 2.0


class Started(NamedTuple):
    """An instance, and what its entry point returned: a promise, or a value with promises in it."""

    instance: DAGInstance
    result: Any

    @property
    def data(self) -> dict[str, object]:
        node = f"{self.result.identifier}" if isinstance(self.result, DAGPromise) else None
        return {"instance": f"{self.instance.instance_id}", "node": node}


@click.command()
@click.argument("definition", metavar="MODULE:Class")
@click.argument("arguments", nargs=-1, metavar="[ARG]...")
@click.option("--wait/--detach", default=True, help="Wait for the result, or print the id and leave.  [default: wait]")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Time to wait at most.")
@address_options
@output_options(NAMED)
def run(
    definition: str, arguments: Sequence[str], wait: bool, timeout: float | None, host: str | None, port: int | None,
    output: Output,
) -> None:  # fmt: skip
    """Start an instance of a definition, and print its result.

    An ARG is read by the annotation of the entry point: int, float, bool, str, Path, and list or dict as JSON; without
    an annotation it is JSON if possible, otherwise text. NAME=VALUE is a keyword argument if the entry point has that
    parameter. Write -- before an ARG that begins with a dash.

    The module is imported from the current folder too. Workers run the nodes; with --timeout or after Ctrl-C the
    instance goes on.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    look_at(host, port)
    made = make_definition(load_definition(definition))
    try:
        args, kwargs = read_arguments(type(made).entrypoint, f"{type(made).__qualname__}.entrypoint", arguments)
    except WrongArguments as error:
        raise click.UsageError(str(error)) from None
    started = _start(made, args, kwargs)
    answer = _wait(started, timeout, output) if wait else _detached(started)
    print_out(answer, output)


def _start(definition: DAGDefinition, args: Sequence[Any], kwargs: dict[str, Any]) -> Started:
    """Create the instance. An entry point that is not decorated runs here, so it may raise anything."""
    try:
        called: Any = definition(*args, **kwargs)
        instance, result = asyncio.run(_awaited(called)) if isawaitable(called) else called
    except DagoramaError:
        raise
    except Exception as error:
        print_user_traceback(error)
        fail(f"the entry point raised {type(error).__name__}", ExitCode.REFUSED)
    return Started(instance, result)


async def _awaited(called: Any) -> Any:
    return await called


def _detached(started: Started) -> Answer:
    id = f"{started.instance.instance_id}"
    return Answer(id, started.data, names=[id])


# --- waiting ------------------------------------------------------------------------------------------------


def _wait(started: Started, timeout: float | None, output: Output) -> Answer:
    """Return the result; exit if there is none."""
    from dagorama.client.connection import connection

    id = f"{started.instance.instance_id}"
    short = id[:PREFIX_DIGITS]
    click.echo(f"instance {id}", err=True)
    try:
        result = _result(started, timeout)
    except TimeoutError:
        why = connection().get_instance(started.instance.instance_id.bytes).stuck
        reason = f": {why}" if why else ""
        fail(f"no result after {timeout:g} s{reason}; the instance goes on: dagorama watch {short}", ExitCode.TIMEOUT)
    except KeyboardInterrupt:
        click.echo(f"interrupted; the instance goes on: dagorama cancel {short} ends it", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except NodeFailed as error:
        fail(f"{_failure_text(error)}\n\nMore: dagorama failures {short}, dagorama graph {short}", ExitCode.REFUSED)
    data = {**started.data, "result": _plain(result), "repr": repr(result)} if output is not Output.TABLE else None
    return Answer(repr(result), data, names=[id])


def _failure_text(error: NodeFailed) -> str:
    """Return the text of an error with the name of the failed node instead of its ids."""
    from dagorama.client.connection import connection

    if error.node_id is None:
        return str(error)
    id = error.node_id.bytes
    return str(error).replace(error.headline, f"{node_names(connection(), [id])[id]}: {error.summary}", 1)


def _result(started: Started, timeout: float | None) -> Any:
    from dagorama.client.results import resolve

    until = None if timeout is None else monotonic() + timeout
    with _progress(started.instance):
        return resolve(started.instance, started.result, timeout=None if until is None else max(0, until - monotonic()))


@contextmanager
def _progress(instance: DAGInstance) -> Iterator[None]:
    """Show the progress of an instance on stderr meanwhile."""
    from dagorama.client.progress import watch

    watching = watch(instance)
    thread = Thread(target=_show, args=(f"{instance.instance_id}", watching), daemon=True)
    thread.start()
    patience = LAST_LOOK_S
    try:
        yield
    except (KeyboardInterrupt, TimeoutError):
        patience = 0.0  # the instance goes on
        raise
    finally:
        thread.join(patience)
        watching.close()
        thread.join(LAST_LOOK_S)


def _show(id: str, watching: Watch) -> None:
    from dagorama.cli.watch import show_progress

    try:
        show_progress(id, watching, err=True)
    except BrokerError as error:  # the wait for the result goes on, and has its own patience
        click.echo(f"the progress cannot be shown: {error}", err=True)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, None if it has no such value: then `repr` describes it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return None
