"""`run_inline()`: a whole graph in the calling thread, and its value."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from dagorama.client.results import resolve
from dagorama.definition import DAGDefinition
from dagorama.errors import NodeFailed, ResourceNotOpened
from dagorama.worker.failures import user_frames
from dagorama_testing.connection import NothingHappens
from dagorama_testing.loop import running
from dagorama_testing.records import NodeRun
from dagorama_testing.world import World, inline

if TYPE_CHECKING:
    from dagorama.models.method_types import EntryOf, OnlyAny

P = ParamSpec("P")
R = TypeVar("R")


@overload
def run_inline(definition: EntryOf[P, OnlyAny], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...
# An async entry point is also a sync one that returns a coroutine; checkers take the first overload that fits.
@overload
def run_inline(definition: EntryOf[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
@overload
def run_inline(definition: EntryOf[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
def run_inline(definition: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Run a graph to its end in this thread, on a real broker in memory, and return the value of its entry point.

    Retries and delays take no time. If a node fails for good, its exception is raised: the object itself, with its own
    traceback and a note that names the node and the attempt. Failures without an exception of user code raise
    NodeFailed or a subclass, as `resolve` does.
    """
    __tracebackhide__ = True  # for pytest
    _check("run_inline()", definition)
    with inline() as world:
        found = definition(*args, **kwargs)
        if isawaitable(found):
            with running(None):
                found = asyncio.run(_awaited(found))
        world.run()
        return _value(world, *found)


@overload
async def run_inline_async(definition: EntryOf[P, OnlyAny], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...
@overload
async def run_inline_async(
    definition: EntryOf[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
) -> R: ...
@overload
async def run_inline_async(definition: EntryOf[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
async def run_inline_async(definition: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Run a graph as `run_inline` does, with its async nodes on the running event loop.

    Other tasks of the loop, such as a server that the nodes ask, run meanwhile.
    """
    __tracebackhide__ = True  # for pytest
    _check("run_inline_async()", definition)
    with inline() as world:
        found = definition(*args, **kwargs)
        if isawaitable(found):
            found = await found
        await world.arun()
        return _value(world, *found)


def _check(what: str, definition: object) -> None:
    if isinstance(definition, type):
        raise TypeError(f"{what} takes a definition: pass {definition.__name__}() instead of {definition.__name__}")
    if not isinstance(definition, DAGDefinition):
        raise TypeError(f"{what} takes a definition, such as MyTask(), not {definition!r}")


async def _awaited(found: Any) -> Any:
    return await found


def _value(world: World, instance: Any, promise: Any) -> Any:
    """Return the value; raise the exception of the node that failed, or of the resource that could not be opened."""
    __tracebackhide__ = True
    try:
        return resolve(instance, promise, timeout=None)
    except NodeFailed as failure:
        run = world.error_of(failure.node_id)
        if run is None:
            raise
    except NothingHappens:
        # A node whose resource cannot be opened is returned, and then no worker may run it.
        run = next((run for run in reversed(world.runs) if isinstance(run.error, ResourceNotOpened)), None)
        if run is None:
            raise
    raise _noted(run)


def _noted(run: NodeRun) -> BaseException:
    """Return the exception of an attempt, with a note on where it was raised, and without frames of ours."""
    assert run.error is not None, "the run has not failed"
    with suppress(Exception):  # what the class of the user's exception allows
        run.error.add_note(f"dagorama: raised by {run.function}, node {run.node_id}, attempt {run.attempt}")
        run.error = run.error.with_traceback(user_frames(run.error.__traceback__))
    return run.error
