"""Start an instance of a definition and wait for its result, for `dagorama run`.

The rule: the result goes to standard output, progress and words to standard error.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dagorama.api.contract import HIGHEST_PRIORITY, LOWEST_PRIORITY
from dagorama.cli.arguments import WrongArguments, read_arguments
from dagorama.cli.base import PREFIX_DIGITS, NumbersCommand, address_options, fail, label_option, node_names
from dagorama.cli.exit_codes import ExitCode
from dagorama.cli.loading import load_definition, make_definition, print_user_traceback
from dagorama.cli.output import NAMED, Answer, Output, output_options, print_out
from dagorama.cli.parameters import Number
from dagorama.errors import BrokerError, DagoramaError, NodeFailed
from dagorama.models.promise import DAGPromise
from dagorama.settings import look_at
from dagorama_monitoring.documentation import with_address

if TYPE_CHECKING:
    from dagorama.definition import DAGDefinition, DAGInstance


class Started(NamedTuple):
    """An instance, and what its entry point returned: a promise, or a value with promises in it."""

    instance: DAGInstance
    result: Any

    @property
    def data(self) -> dict[str, object]:
        node = f"{self.result.identifier}" if isinstance(self.result, DAGPromise) else None
        return {"instance": f"{self.instance.instance_id}", "node": node}


@click.command(cls=NumbersCommand)
@click.argument("definition", metavar="MODULE:Class")
@click.argument("arguments", nargs=-1, metavar="[ARG]...")
@click.option("--wait/--detach", default=True, help="Wait for the result, or print the ID and exit.  [default: wait]")
@click.option(
    "--id", "name", help="ID of the instance. If an instance with the same arguments has it, wait for that one."
)
@label_option("Label of the instance. May be repeated.")
@click.option(
    "--priority", type=click.IntRange(LOWEST_PRIORITY, HIGHEST_PRIORITY), default=0,
    help="Instances with a higher priority go before older ones.  [default: 0]",
)  # fmt: skip
@click.option("--fair", metavar="KEY", help="Instances with different keys take turns.")
@click.option("--timeout", type=Number(min=0, min_open=True), metavar="SECONDS", help="Longest time to wait.")
@address_options
@output_options(NAMED)
def run(
    definition: str, arguments: Sequence[str], wait: bool, name: str | None, labels: Mapping[str, str], priority: int,
    fair: str | None, timeout: float | None, host: str | None, port: int | None, output: Output,
) -> None:  # fmt: skip
    """Start an instance of a definition, and print its result.

    An ARG is parsed by the annotation of its parameter: int, float, bool, str, Path, and list or dict as JSON.
    Without an annotation it is JSON if possible, otherwise text. NAME=VALUE is a keyword argument if the entry point
    has that parameter. Write -- before an ARG that begins with a dash and is not a number.

    The module may be in the current folder. Workers run the nodes; the instance continues after Ctrl-C, and after
    --timeout.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    look_at(host, port)
    made = make_definition(load_definition(definition))
    try:
        args, kwargs = read_arguments(type(made).entrypoint, f"{type(made).__qualname__}.entrypoint", arguments)
    except WrongArguments as error:
        raise click.UsageError(str(error)) from None
    started = _start(_starter(made, name, labels, priority, fair), args, kwargs)
    answer = _wait(started, timeout, output) if wait else _detached(started)
    print_out(answer, output)


def _starter(
    definition: DAGDefinition, name: str | None, labels: Mapping[str, str], priority: int, fair: str | None
) -> Any:
    """Return a function that starts the instance with these options."""
    from dagorama.calls.instance_start import start

    starting: Any = start
    try:
        return starting(definition, id=name, labels=labels, priority=priority, fair=fair)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _start(starter: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Started:
    """Create the instance. An entry point that is not decorated runs here, so it may raise anything."""
    try:
        called: Any = starter(*args, **kwargs)
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
    id = f"{started.instance.instance_id}"
    short = id[:PREFIX_DIGITS]
    click.echo(f"instance {id}", err=True)
    try:
        result = _result(started, timeout)
    except TimeoutError:
        why = _stuck(started)
        reason = f": {why}" if why else ""
        fail(f"no result after {timeout:g} s{reason}; the instance continues: dagorama watch {short}", ExitCode.TIMEOUT)
    except KeyboardInterrupt:
        click.echo(f"interrupted; the instance continues: dagorama cancel {short} ends it", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except NodeFailed as error:
        more = f"{_failure_text(error)}\n\nMore: dagorama failures {short}, dagorama graph {short}"
        fail(with_address(error, more), ExitCode.REFUSED)
    data = {**started.data, "result": _plain(result), "repr": repr(result)} if output is not Output.TABLE else None
    return Answer(repr(result), data, names=[id])


def _stuck(started: Started) -> str:
    """Return why the instance does not go on; an empty text if it does, or if the broker does not say."""
    from dagorama.client.connection import connection

    try:
        return connection().get_instance(started.instance.instance_id.bytes).stuck
    except BrokerError:
        return ""  # the time is over in any case, and the exit code must say so


def _failure_text(error: NodeFailed) -> str:
    """Return the text of an error with the name of the failed node instead of its IDs."""
    from dagorama.client.connection import connection

    if error.node_id is None:
        return str(error)
    id = error.node_id.bytes
    return str(error).replace(error.headline, f"{node_names(connection(), [id])[id]}: {error.summary}", 1)


def _result(started: Started, timeout: float | None) -> Any:
    from dagorama.client.results import resolve

    return resolve(started.instance, started.result, timeout=timeout, progress=True)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, None if it has no such value: then `repr` describes it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return None
