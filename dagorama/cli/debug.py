"""Run a node again in this process under the debugger, for `dagorama debug`.

The rule: the inputs are the real ones, verified as a worker verifies them, and nothing is reported to the broker.
"""

from __future__ import annotations

import sys
from bdb import BdbQuit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import iscoroutinefunction
from pdb import Pdb
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from dagorama.cli.base import TARGET, address_options, fail, node_names, node_reference, whole_ids
from dagorama.cli.exit_codes import ExitCode
from dagorama.cli.loading import import_from_here, import_path_of_workers, in_user_code, print_user_traceback
from dagorama.cli.output import say
from dagorama.cli.parameters import names_option
from dagorama.client.display.tables import pluralize
from dagorama.settings import look_at

if TYPE_CHECKING:
    from types import TracebackType

    from dagorama.client.connection import Connection
    from dagorama.worker.child.call import Call
    from dagorama.worker.in_process.rerun import Rerun

#: Modules that the debugger does not step into.
_SKIPPED = ("dagorama", "dagorama.*", "asyncio", "asyncio.*", "selectors", "contextlib", "contextvars")


@click.command()
@TARGET
@click.argument("node", type=node_reference, required=False)
@click.option("--start", is_flag=True, help="Stop at the first line of the function instead of at the exception.")
@names_option("--import", "imports", "MODULE", "Import this module first, as `worker --import` does.")
@address_options
def debug(
    instance: str, node: str | None, start: bool, imports: Sequence[str], host: str | None, port: int | None
) -> None:
    """Run NODE again, here, with its real arguments and source values, and stop in pdb at the exception that it raises.

    The code is the code of this folder, as a worker would import it. The run is not reported: the node keeps its
    state, and nodes that it creates are dropped. Effects of the code on files, databases and networks are real.

    Exit codes: 0 if the function returns, 1 if it raises an exception, 130 if the debugger was left before.
    """
    from dagorama.client.connection import connection

    look_at(host, port)
    broker = connection()
    whole, nodes = whole_ids(broker, instance, [node] if node is not None else [])
    if len(nodes) != 1:
        raise click.UsageError("debug takes one node, such as 3f9a1c02/17")
    for module in imports:
        import_from_here(module)
    sys.exit(_debug(broker, whole, nodes[0], start))


def _debug(broker: Connection, instance: bytes, node: bytes, start: bool) -> ExitCode:
    from dagorama.worker.in_process.rerun import load, rerun

    import_path_of_workers()
    name = node_names(broker, [node])[node]
    loaded = load(broker, instance, node, lambda id: node_names(broker, [id]).get(id, f"{UUID(bytes=id)}"))
    _say(f"{name}  {loaded.call.work.name}: the run is not reported, and nodes that it creates are dropped")
    if loaded.has_other_code:
        _say("the code here is not the code that the node was created with")
    return _told(rerun(broker, loaded.call, _stopping if start else None), loaded.call, post_mortem=not start)


def _told(done: Rerun, call: Call, *, post_mortem: bool) -> ExitCode:
    """Say how the run ended, in the debugger if it raised an exception; return the exit code."""
    from dagorama.worker.in_process.rerun import is_unfit

    if done.error is None:
        created = f"; it would have created {pluralize(done.created, 'node', 'nodes')}" if done.created else ""
        _say(f"the function returned{created}")
        json = call.work.target and call.work.target.json
        say(repr(done.result) if json is None else json.result_text(done.result))
        return ExitCode.OK
    if isinstance(done.error, BdbQuit | KeyboardInterrupt):
        _say("left before the function ended")
        return ExitCode.INTERRUPTED
    if (reason := is_unfit(done.error, call)) is not None:
        fail(f"this process cannot run it: {reason}", ExitCode.REFUSED)
    print_user_traceback(done.error)
    if post_mortem and (place := in_user_code(done.error.__traceback__)) is not None:
        _post_mortem(place)
    return ExitCode.REFUSED


def _say(text: str) -> None:
    click.echo(f"dagorama: {text}", err=True)


# --- the debugger -------------------------------------------------------------------------------------------


def _post_mortem(place: TracebackType) -> None:
    debugger = Pdb()
    debugger.reset()
    debugger.interaction(None, place)


def _stopping(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as one that stops in the debugger at its first line."""
    # Pdb.runcall() would return None if the debugger is left, as if the function had.
    debugger = Pdb(skip=_SKIPPED)

    def stopping(*args: Any, **kwargs: Any) -> Any:
        with _traced(debugger):
            return function(*args, **kwargs)

    async def stopping_async(*args: Any, **kwargs: Any) -> Any:
        with _traced(debugger):
            return await function(*args, **kwargs)

    return stopping_async if iscoroutinefunction(function) else stopping


@contextmanager
def _traced(debugger: Pdb) -> Iterator[None]:
    """Stop at the first line of the next function that is called within the context."""
    debugger.reset()
    sys.settrace(debugger.trace_dispatch)
    try:
        yield
    finally:
        sys.settrace(None)
