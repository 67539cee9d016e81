"""`start(definition, id=..., fair=..., refresh=...)`: a call of a definition with options for the new instance.

The rule: an ID is looked up before the entry point runs, and the broker refuses to give it to a second instance.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload
from uuid import UUID

from dagorama.client.connection import connection
from dagorama.client.worker_thread import in_thread
from dagorama.context import batch_here
from dagorama.definition import DAGDefinition, DAGInstance, instance_within, run_entry, set_scope
from dagorama.errors import InstanceExists, NotFound, RequestRejected
from dagorama.graph.definitions import entry_promise
from dagorama.graph.delays import TWICE, Delay
from dagorama.graph.launch import Launch
from dagorama.graph.scope import attempt_scope
from dagorama.graph.start_options import Started, StartedInstance, StartOptions, start_options, started_with
from dagorama.graph.submission import Batch
from dagorama.user_code.names import class_name

if TYPE_CHECKING:
    from dagorama.models.method_types import EntryOf, OnlyAny
    from dagorama.models.promise import DAGPromise

P = ParamSpec("P")
R = TypeVar("R")
Found = tuple[DAGInstance, Any]

#: How often a call begins again because another one gave the ID to an instance after it was looked up.
ATTEMPTS = 5


@overload
def start(
    definition: EntryOf[P, OnlyAny],
    *,
    id: str | None = None,
    labels: Mapping[str, str] | None = None,
    priority: int = 0,
    fair: str | None = None,
    refresh: bool = False,
) -> Callable[P, tuple[DAGInstance, DAGPromise[Any]]]: ...
# An async entry point is also a sync one that returns a coroutine; checkers take the first overload that fits.
@overload
def start(  # type: ignore[overload-overlap]
    definition: EntryOf[P, Coroutine[Any, Any, R]],
    *,
    id: str | None = None,
    labels: Mapping[str, str] | None = None,
    priority: int = 0,
    fair: str | None = None,
    refresh: bool = False,
) -> Callable[P, Coroutine[Any, Any, tuple[DAGInstance, DAGPromise[R]]]]: ...
@overload
def start(
    definition: EntryOf[P, R],
    *,
    id: str | None = None,
    labels: Mapping[str, str] | None = None,
    priority: int = 0,
    fair: str | None = None,
    refresh: bool = False,
) -> Callable[P, tuple[DAGInstance, DAGPromise[R]]]: ...
def start(
    definition: Any,
    *,
    id: str | None = None,
    labels: Mapping[str, str] | None = None,
    priority: int = 0,
    fair: str | None = None,
    refresh: bool = False,
) -> Any:
    """Return a function that starts an instance: `start(MyTask(), id="order-42")(8)` is `MyTask()(8)` with an ID.

    `id`, of at most 256 characters, makes the start idempotent: while the broker has an instance of this definition
    with the same ID, a start with the same arguments returns that one, whether it runs, has completed or has failed,
    and its entry point does not run again. Other arguments raise InstanceExists. Plain values and containers are
    compared by their content, objects of other classes by their pickles. When the instance is deleted or its retention
    is over, the ID may be used again. `attach(id=...)` returns the instance in any process.

    `labels` are up to 16 strings by name, of at most 256 and 64 characters, by which `dagorama list --label` finds
    instances. `priority`, from -128 to 127, comes before age: queued nodes of instances of a higher priority go first.
    Instances with different `fair` keys, of at most 256 characters, take turns. With `refresh`, all nodes of the
    instance run even if their values are cached.

    Raises TypeError or ValueError for an invalid argument. In a function with `stream_children` an ID is refused.
    """
    if not isinstance(definition, DAGDefinition):
        raise TypeError(f"start() takes an object of a DAGDefinition, and was given {definition!r}")
    return DefinitionStart(definition, start_options(id, labels, priority, fair, refresh))


class DefinitionStart:
    """A definition that is about to be called."""

    def __init__(self, definition: DAGDefinition, options: StartOptions) -> None:
        self._definition = definition
        self._options = options
        self._key = class_name(type(definition)), options.id

    def after(self, delay: Delay) -> DefinitionStart:
        """Return the same start after a delay. Raises ValueError if it has one, or the entry point is no node."""
        entry = getattr(type(self._definition), "entrypoint", None)
        if not hasattr(entry, "original_fn"):
            raise ValueError(
                f"the entry point of {self._key[0]} is not decorated: it runs where it is called, so it cannot be"
                " delayed; decorate it with @dagorama, or delay the calls that it makes"
            )
        if self._options.delay is not None:
            raise ValueError(TWICE.format(name=self._key[0]))
        return DefinitionStart(self._definition, replace(self._options, delay=delay))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        entry = type(self._definition).entrypoint
        if iscoroutinefunction(getattr(entry, "original_fn", entry)):
            return self._start_async(args, kwargs)
        if not self._options.id:
            return run_entry(self._launch(self._options), args, kwargs)
        options = self._identified(args, kwargs)
        for attempt in range(ATTEMPTS):
            launch = self._look_up(options)
            if not isinstance(launch, Launch):
                return launch
            try:
                return self._note(options, run_entry(launch, args, kwargs))
            except RequestRejected as error:
                _raise_unless_taken(error, attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _start_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._options.id:
            return await run_entry(self._launch(self._options), args, kwargs)
        options = self._identified(args, kwargs)
        for attempt in range(ATTEMPTS):
            launch = await in_thread(self._look_up, options)
            if not isinstance(launch, Launch):
                return launch
            try:
                return self._note(options, await run_entry(launch, args, kwargs))
            except RequestRejected as error:
                _raise_unless_taken(error, attempt)
        raise AssertionError("the last attempt returns or raises")

    def _launch(self, options: StartOptions, existing: bytes | None = None) -> Launch[DAGInstance]:
        return Launch(self._definition, instance_within, set_scope, options, existing)

    def _identified(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StartOptions:
        """Return the options with the digest of what the instance is started with."""
        attempt = attempt_scope()
        if attempt is not None and attempt.on_growth is not None:
            raise ValueError(
                f"start(id={self._options.id!r}) was called in a function with stream_children: an attempt that fails "
                "cancels what it has started, and the ID would be lost; start it in another function"
            )
        return replace(self._options, digest=started_with(self._definition, args, kwargs))

    def _look_up(self, options: StartOptions) -> Found | Launch[DAGInstance]:
        """Return the instance with this ID; if there is none, return the launch of a new one.

        Raises InstanceExists if it was started with other arguments.
        """
        definition, id = self._key
        pending = _pending().get(self._key)
        if pending is not None:
            self._check(options, pending.digest, pending.instance.instance_id)
            return pending.instance, pending.result
        try:
            info = connection().get_named_instance(definition, id)
        except NotFound:
            return self._launch(options)
        self._check(options, info.digest, UUID(bytes=info.instance))
        if not info.entry:
            return self._launch(options, info.instance)
        return DAGInstance(UUID(bytes=info.instance), self._definition), entry_promise(definition, info)

    def _check(self, options: StartOptions, digest: bytes, instance: UUID) -> None:
        if digest != options.digest:
            raise InstanceExists(
                f"the instance {instance} of {self._key[0]} has the ID {options.id!r} and was started with other "
                "arguments: use another ID, or delete that instance when it has ended (dagorama delete)"
            )

    def _note(self, options: StartOptions, found: Found) -> Found:
        """Remember an instance that is not submitted yet, for another start with the same ID."""
        _pending()[self._key] = StartedInstance(options.digest, *found)
        return found


def _pending() -> Started:
    """Return the instances that the running node, or the open batch() block, will submit; outside of both, none."""
    attempt, batch = attempt_scope(), batch_here()
    if attempt is not None:
        return attempt.started
    return batch.started if isinstance(batch, Batch) else {}


def _raise_unless_taken(error: RequestRejected, attempt: int) -> None:
    """Raise the error unless another call gave the ID to an instance meanwhile, which the next look-up finds."""
    if error.status != "ALREADY_EXISTS" or attempt == ATTEMPTS - 1:
        raise error
