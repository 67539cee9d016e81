"""Definitions, and the instances that behave as them: where a decorated call learns which graph it belongs to.

The rule: a definition is shared by all its instances and no instance changes it; what an instance sets on itself
stays with that instance.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, final, overload
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from dagorama.connection import connection
from dagorama.errors import DefinitionNotRegistered, FunctionNotFound, UnknownToBroker, WrongInstance
from dagorama.logging import get_logger
from dagorama.models.promise import DAGPromise, restore_promise
from dagorama.resolution import resolve as resolve
from dagorama.scope import DirectScope, GatherScope, NodesRun, Scope, current_attempt, submit

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


class DAGDefinition(ABC):
    """A graph: subclass it, decorate its methods, call an object of it.

    Calling runs the entry point and returns `(instance, promise)`, or for an async entry point something to be
    awaited for them. An entry point that raises leaves nothing behind. Called inside a running node, the new
    instance becomes known with that node's result; its promise may be returned from the node.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
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
        identifier = _uuid(instance_id)
        info = connection().get_instance(identifier.bytes)
        name = class_name(cls)
        _check_attached(identifier, info, name)
        promise = restore_promise(info.entry, identifier.bytes, f"{name}.entrypoint", None)
        return DAGInstance(identifier, instantiate(cls)), promise

    @abstractmethod
    def entrypoint(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the definition runs: decorated, or plain code that makes the first decorated calls."""


#: frames that stand between a caller and the entry point that it called
ENTRY_CODE = DAGDefinition.__call__.__code__


class _Launch:
    """One call of a definition: the new instance, and the scope that gathers its first nodes."""

    def __init__(self, definition: DAGDefinition) -> None:
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
        if result._instance_bytes not in (None, self.instance_id.bytes):
            self.scope.close()
            raise WrongInstance(
                f"the entry point of {class_name(type(self.instance.definition))} returned a promise of another "
                f"instance: {result!r}; decorate the entry point, so that a worker waits for it"
            )
        return result.node_id


class DAGInstance:
    """One run of a definition, and `self` inside its methods: it has what the definition has.

    Methods get the instance as `self`, so that their decorated calls become nodes of it. An attribute that is
    set on it hides the definition's and is seen by nobody else. It pickles, and
    `DAGInstance(UUID(text), definition)` gives it back in another process.
    """

    # What an instance sets on itself is its __dict__; everything else comes from the definition.
    __slots__ = ("__dict__", "__weakref__", "_dagorama_id", "_dagorama_scope", "definition")

    definition: DAGDefinition
    _dagorama_id: bytes
    _dagorama_scope: Scope

    def __init__(self, instance_id: UUID | str, definition: DAGDefinition) -> None:
        _set_id(self, _uuid(instance_id).bytes)
        _set_definition(self, definition)
        set_scope(self, DirectScope())

    @property
    def instance_id(self) -> UUID:
        return UUID(bytes=self._dagorama_id)

    if not TYPE_CHECKING:
        # isinstance(self, MyTask) and super() ask for it; isinstance(self, DAGInstance) holds as well.
        @property
        def __class__(self) -> type[DAGDefinition]:
            return type(self.definition)

    def __getattr__(self, name: str) -> Any:
        if name in OWN_NAMES:
            raise AttributeError(name)  # not filled yet
        definition = self.definition
        cls = type(definition)
        found = _on_class(cls, name)
        if type(found) is FunctionType and name not in definition.__dict__:
            return MethodType(found, self)
        if _is_ours_to_bind(found) and (_is_data(found) or name not in definition.__dict__):
            return type(found).__get__(found, self, cls)
        value = getattr(definition, name)
        # A method that the definition's __init__ stored is still a method of this instance.
        if type(value) is MethodType and value.__self__ is definition:
            return MethodType(value.__func__, self)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        found = _on_class(type(self.definition), name)
        if _is_ours_to_bind(found) and hasattr(type(found), "__set__"):
            type(found).__set__(found, self, value)
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        found = _on_class(type(self.definition), name)
        if _is_ours_to_bind(found) and hasattr(type(found), "__delete__"):
            type(found).__delete__(found, self)
        elif name in self.__dict__ or not hasattr(self, name):
            object.__delattr__(self, name)
        else:
            raise AttributeError(f"{name!r} is the definition's, which other instances share", name=name, obj=self)

    def __dir__(self) -> list[str]:
        return sorted({*dir(self.definition), *self.__dict__, "definition", "instance_id"})

    def __reduce__(self) -> tuple[Callable[..., DAGInstance], tuple[object, ...]]:
        return _restore_instance, (self._dagorama_id, self.definition, self.__dict__)

    def __repr__(self) -> str:
        return f"<{type(self.definition).__qualname__} instance {self.instance_id}>"


OWN_NAMES = frozenset({*DAGInstance.__slots__, "instance_id"})

# Around our own __setattr__, which thinks of the definition first.
_set_id: Callable[[DAGInstance, bytes], None] = DAGInstance.__dict__["_dagorama_id"].__set__
_set_definition: Callable[[DAGInstance, DAGDefinition], None] = DAGInstance.__dict__["definition"].__set__
set_scope: Callable[[DAGInstance, Scope], None] = DAGInstance.__dict__["_dagorama_scope"].__set__


def instance_within(instance_id: bytes, definition: DAGDefinition, scope: Scope) -> DAGInstance:
    """An instance whose decorated calls go to `scope`."""
    instance = DAGInstance.__new__(DAGInstance)
    _set_id(instance, instance_id)
    _set_definition(instance, definition)
    set_scope(instance, scope)
    return instance


def _restore_instance(instance_id: bytes, definition: DAGDefinition, attributes: dict[str, Any]) -> DAGInstance:
    instance = instance_within(instance_id, definition, DirectScope())
    instance.__dict__.update(attributes)
    return instance


def _on_class(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None


def _is_ours_to_bind(found: Any) -> bool:
    # A slot's descriptor knows only objects of the definition's own layout.
    return hasattr(type(found), "__get__") and not isinstance(found, (MemberDescriptorType, GetSetDescriptorType))


def _is_data(found: Any) -> bool:
    return hasattr(type(found), "__set__") or hasattr(type(found), "__delete__")


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


def _uuid(instance_id: UUID | str) -> UUID:
    return instance_id if isinstance(instance_id, UUID) else UUID(instance_id)


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


async def in_thread(function: Callable[..., R], *args: Any) -> R:
    """Runs what waits for the broker beside a running asyncio loop; without such a loop, here."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return function(*args)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function(*args)
    result: R = await asyncio.to_thread(function, *args)
    return result
