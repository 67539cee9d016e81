"""Definitions: what a graph is made of, how calling one makes an instance, and how a process finds one by name.

The rule: a definition is shared by all its instances; an instance becomes known whole or not at all.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from inspect import Signature, isawaitable, signature
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, final, overload
from uuid import UUID, uuid4

from dagorama.client.connection import connection
from dagorama.client.results import resolve as resolve
from dagorama.errors import PromiseMisuse, UnknownToBroker, WrongInstance
from dagorama.graph import shipping
from dagorama.graph.constructor_arguments import (
    given_to_new,
    made_again,
    note_assigned,
    note_constructed,
    packed,
    remade,
)
from dagorama.graph.instance import DAGInstance as DAGInstance
from dagorama.graph.instance import in_thread, set_scope
from dagorama.graph.instance import instance_within as instance_within
from dagorama.graph.reserved import check_attributes, check_class
from dagorama.graph.scope import (
    DirectScope,
    GatherScope,
    NodesRun,
    attempt_here,
    current_attempt,
    put_through_connection,
)
from dagorama.graph.submission import submit
from dagorama.models.identifiers import as_uuid
from dagorama.models.instance_type import InstanceType, plain
from dagorama.models.outcome import Outcome
from dagorama.models.promise import DAGPromise, restore_promise
from dagorama.user_code.class_code import renew
from dagorama.user_code.names import class_name as class_name

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


class _ConstructorSignature:
    """The signature of a definition's class is that of its constructor, although `__new__` takes anything."""

    def __get__(self, definition: object, cls: type) -> Signature | None:
        if definition is not None:
            return None
        if cls.__init__ is object.__init__:  # type: ignore[misc]  # it is only compared
            return Signature()
        found = signature(cls.__init__)  # type: ignore[misc]  # as a function
        return found.replace(parameters=list(found.parameters.values())[1:])


class DAGDefinition(ABC):  # noqa: B024  # its abstract method is hidden from checkers
    """A graph: subclass it, decorate its methods, call an object of it.

    Calling runs the entry point and returns `(instance, promise)`, or for an async entry point something to be
    awaited for them. An entry point that raises leaves nothing behind. Called inside a running node, the new
    instance becomes known with that node's result; its promise may be returned from the node.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls, own=(DAGDefinition,))
        shipping.definitions.add(cls)
        if current_attempt.get() is not None:
            shipping.made_in_nodes.add(cls)

    # Type checkers see the constructor that the subclass has.
    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if (args or kwargs) and cls.__init__ is object.__init__:
                raise TypeError(f"{cls.__name__}() takes no arguments")
            new = super().__new__
            definition = new(cls) if new is object.__new__ else new(cls, *args, **kwargs)
            if not args and not kwargs and cls.__new__ is not DAGDefinition.__new__:
                args, kwargs = given_to_new(sys._getframe(1))
            if args or kwargs:
                note_constructed(definition, args, kwargs)
            return definition

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            note_assigned(self, name)

        def __reduce_ex__(self, protocol: Any) -> Any:
            return remade(self, super().__reduce_ex__(protocol))

        __signature__ = _ConstructorSignature()

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
        identifier = as_uuid(instance_id, "an instance's id")
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
        shipping.ensure_reachable(type(definition), renew(type(definition)))
        self.instance_id = uuid4()
        self.attempt = attempt_here()
        if self.attempt is None:
            self.scope = GatherScope(self.instance_id.bytes, self._hand_over)
            self.scope.constructor = packed(definition, put_through_connection)
        else:
            self.scope = self.attempt.new_instance(self.instance_id.bytes)
            self.scope.constructor = packed(definition, self.attempt.put_large)
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
        set_scope(self.instance, DirectScope(None, self.scope.constructor))

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



def instantiate(cls: type[DAGDefinition]) -> DAGDefinition:
    """Return the definition of a class in this process: the registered one, or one that is made without arguments.

    Raises DefinitionNotRegistered if it cannot be made.
    """
    return _registered(cls) or definition_like(cls, None)


def definition_like(cls: type[DAGDefinition], constructor: bytes | None) -> DAGDefinition:
    """Return a definition like that of a caller, whose call came with `constructor`; None: it had no arguments.

    Raises DefinitionNotRegistered if it cannot be made here, DefinitionDiffers if another one is registered, and what
    the constructor raises.
    """
    found: DAGDefinition = made_again(cls, constructor, _registered(cls))
    return found


def _registered(cls: type[DAGDefinition]) -> DAGDefinition | None:
    known = shipping.registered.get(class_name(cls))
    return known if type(known) is cls else None


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
