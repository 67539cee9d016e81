"""Definitions: what a graph is made of, how calling one makes an instance, and how a process finds one by name.

The rule: a definition is shared by all its instances; an instance becomes known whole or not at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, final, overload
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from dagorama.connection import connection
from dagorama.errors import (
    DefinitionNotRegistered,
    FunctionNotFound,
    PromiseMisuse,
    UnknownToBroker,
    WrongInstance,
)
from dagorama.instance import DAGInstance as DAGInstance
from dagorama.instance import as_uuid, in_thread, set_scope
from dagorama.instance import instance_within as instance_within
from dagorama.instance_type import InstanceType, plain
from dagorama.logging import get_logger
from dagorama.models.outcome import Outcome
from dagorama.models.promise import DAGPromise, restore_promise
from dagorama.reserved import check_attributes, check_class
from dagorama.resolution import resolve as resolve
from dagorama.scope import DirectScope, GatherScope, NodesRun, current_attempt
from dagorama.submitting import submit

if TYPE_CHECKING:
    from dagorama.api.api_pb2_grpc import DagoramaStub
    from dagorama.api.broker_pb2 import InstanceInfo

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@final
class _OnlyAny:
    """Nothing is of this type, so an entry point that returns it returns Any."""


class _Entry(Protocol[P, R_co]):
    """A definition as the type checker sees it: parameters and result of its entry point."""

    @property
    def entrypoint(self) -> Callable[P, R_co]: ...


class DAGDefinition(ABC):  # noqa: B024  # its abstract method is hidden from checkers
    """A graph: subclass it, decorate its methods, call an object of it.

    Calling runs the entry point and returns `(instance, promise)`, or for an async entry point something to be
    awaited for them. An entry point that raises leaves nothing behind. Called inside a running node, the new
    instance becomes known with that node's result; its promise may be returned from the node.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls, own=(DAGDefinition,))
        name = class_name(cls)
        if is_local(name):
            local_classes[name] = cls

    @overload
    def __call__(
        self: _Entry[P, _OnlyAny], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[DAGInstance, DAGPromise[Any]]: ...
    # An async entry point also is a sync one that returns a coroutine; checkers take the first that fits.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self: _Entry[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, tuple[DAGInstance, DAGPromise[R]]]: ...
    @overload
    def __call__(self: _Entry[P, R], *args: P.args, **kwargs: P.kwargs) -> tuple[DAGInstance, DAGPromise[R]]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        launch = _Launch(self)
        try:
            result = launch.instance.entrypoint(*args, **kwargs)
        except BaseException:
            launch.scope.close()
            raise
        if isawaitable(result) and not isinstance(result, DAGPromise):
            return launch.finish_later(result)
        return launch.finish(result)

    @overload
    @classmethod
    def attach(cls: type[_Entry[P, _OnlyAny]], instance_id: UUID | str) -> tuple[DAGInstance, DAGPromise[Any]]: ...
    @overload
    @classmethod
    def attach(
        cls: type[_Entry[P, Coroutine[Any, Any, R]]], instance_id: UUID | str
    ) -> tuple[DAGInstance, DAGPromise[R]]: ...
    @overload
    @classmethod
    def attach(cls: type[_Entry[P, R]], instance_id: UUID | str) -> tuple[DAGInstance, DAGPromise[R]]: ...
    @classmethod
    def attach(cls: Any, instance_id: UUID | str) -> Any:
        """An instance that another process made, and the promise of its entry point.

        Raises UnknownToBroker when the broker has no such instance or it has no entry point, WrongInstance when
        it is of another definition, DefinitionNotRegistered when this one needs constructor arguments.
        """
        identifier = as_uuid(instance_id)
        info = connection().get_instance(identifier.bytes)
        name = class_name(cls)
        _check_attached(identifier, info, name)
        promise = restore_promise(info.entry, identifier.bytes, f"{name}.entrypoint", None)
        return DAGInstance(identifier, instantiate(cls)), promise

    @classmethod
    def __subclasshook__(cls, subclass: type) -> bool:
        """issubclass(type(self), MyTask): the type of an instance counts as the class of its definition."""
        return issubclass(plain(subclass), cls) if type(subclass) is InstanceType else NotImplemented

    if TYPE_CHECKING:
        # A method could be overridden by plain methods only, as pyright sees it.
        entrypoint: Any
    else:

        @abstractmethod
        def entrypoint(self, *args: Any, **kwargs: Any) -> Any:
            """What calling the definition runs: decorated, or plain code that makes the first decorated calls."""


#: frames that stand between a caller and the entry point that it called
ENTRY_CODE = DAGDefinition.__call__.__code__


class _Launch:
    """One call of a definition: the new instance, and the scope that gathers its first nodes."""

    def __init__(self, definition: DAGDefinition) -> None:
        check_attributes(definition)
        _check_reachable(type(definition))
        self.instance_id = uuid4()
        self.attempt = current_attempt.get()
        if self.attempt is None:
            self.scope = GatherScope(self.instance_id.bytes, self._hand_over)
        else:
            self.scope = self.attempt.new_instance(self.instance_id.bytes)
        self.instance = instance_within(self.instance_id.bytes, definition, self.scope)

    def finish(self, result: Any) -> tuple[DAGInstance, Any]:
        """Makes the instance known; `result` is what the entry point returned, usually a promise."""
        definition = type(self.instance.definition)
        self.scope.launch(class_name(definition), self._entry(result))
        return self.instance, result

    async def finish_later(self, entry: Any) -> tuple[DAGInstance, Any]:
        try:
            result = await entry
        except BaseException:
            self.scope.close()
            raise
        if self.attempt is not None:
            return self.finish(result)
        return await in_thread(self.finish, result)

    def _hand_over(self, run: NodesRun) -> None:
        self.scope.close()
        submit(run)
        set_scope(self.instance, DirectScope())

    def _entry(self, result: Any) -> bytes | None:
        if not isinstance(result, DAGPromise):
            return None
        if isinstance(result, Outcome):
            self.scope.close()
            raise PromiseMisuse(
                f"the entry point of {class_name(type(self.instance.definition))} returned the {result!r}: return the "
                "promise, and resolve(instance, outcome(promise)) gives the value or the Failure"
            )
        if result._instance_bytes not in (None, self.instance_id.bytes):
            self.scope.close()
            raise WrongInstance(
                f"the entry point of {class_name(type(self.instance.definition))} returned a promise of another "
                f"instance: {result!r}; decorate the entry point, so that a worker waits for it"
            )
        return result.node_id


# --- definitions by name ---------------------------------------------------------------------------

#: classes that nobody can import (in `__main__` or in a function), the latest of each name
local_classes: WeakValueDictionary[str, type[DAGDefinition]] = WeakValueDictionary()
#: what register_definition was given
registered: dict[str, DAGDefinition] = {}
_made: dict[str, DAGDefinition] = {}
_announced: set[str] = set()


def class_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def is_local(name: str) -> bool:
    """Whether a name leads to nothing that another process could import."""
    return name.startswith("__main__:") or "<locals>" in name


def _check_reachable(cls: type[DAGDefinition]) -> None:
    """Refuses a class that no worker would find, and says once of each local one who will."""
    name = class_name(cls)
    if not is_local(name):
        return
    if local_classes.get(name, cls) is not cls:
        raise FunctionNotFound(
            f"{name} was defined again after this definition was made, and workers find a class by its name: "
            "make the definition from the latest class, or give the classes different names"
        )
    if name not in _announced:
        _announced.add(name)
        get_logger().info(
            "%s cannot be imported by other processes: workers that this process launches get it, for remote "
            "ones put it into a module that they can import",
            name,
        )


def instantiate(cls: type[DAGDefinition]) -> DAGDefinition:
    """The definition of a class in this process: the registered one, or one made without arguments and kept.

    Raises DefinitionNotRegistered where it cannot be made without arguments.
    """
    name = class_name(cls)
    for known in (registered, _made):
        if type(known.get(name)) is cls:
            return known[name]
    try:
        definition = _made[name] = cls()
    except Exception as error:
        raise DefinitionNotRegistered(
            f"{name}() cannot be made without arguments ({type(error).__name__}: {error}); call "
            f"register_definition({cls.__qualname__}(...)) in each process that needs it, for a worker in a "
            "module that it imports (worker --import MODULE)"
        ) from error
    return definition


def _check_attached(identifier: UUID, info: InstanceInfo, name: str) -> None:
    if info.definition and not _same_definition(info.definition, name):
        raise WrongInstance(f"instance {identifier} is of {info.definition}, not of {name}")
    if not info.entry:
        raise UnknownToBroker(f"instance {identifier} has no entry point to promise its value", "NOT_FOUND")


def _same_definition(one: str, other: str) -> bool:
    # A script's module is `__main__` where it runs and has its own name where it is imported.
    (module, path), (other_module, other_path) = one.split(":", 1), other.split(":", 1)
    return path == other_path and (module == other_module or "__main__" in (module, other_module))


# --- the broker, as the original's callers reach it --------------------------------------------------


@contextmanager
def dagorama_context() -> Iterator[DagoramaStub]:
    """The original's calls, on this process's one channel."""
    yield connection().original


def generate_instance_id() -> UUID:
    """Makes an instance that has no nodes yet; `DAGInstance(generate_instance_id(), definition)` adds them."""
    instance_id = uuid4()
    GatherScope(instance_id.bytes).launch("", None)
    return instance_id
