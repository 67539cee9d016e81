"""Definitions, and their instances: one run of a definition, and `self` inside its methods.

The rule: a definition is shared by all its instances. An instance behaves as its definition and never changes it;
attributes that are set on an instance stay with that instance.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from inspect import isawaitable
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload
from uuid import UUID

from dagorama.client.connection import connection
from dagorama.client.connection import dagorama_context as dagorama_context
from dagorama.client.control import cancel, retry_failed
from dagorama.client.results import resolve as resolve
from dagorama.context import current_attempt
from dagorama.graph.constructor_arguments import given_to_new, note_assigned, note_constructed, remade
from dagorama.graph.definitions import entry_promise, instantiate, is_prepared, prepare
from dagorama.graph.immediate_scope import CallScope, ImmediateScope
from dagorama.graph.launch import Launch
from dagorama.graph.launch import generate_instance_id as generate_instance_id
from dagorama.graph.reserved import OF_INSTANCES, refusal
from dagorama.graph.start_options import check_id
from dagorama.models import instance_type, stored
from dagorama.models.instance_type import InstanceType, is_bindable, is_data_descriptor, on_class
from dagorama.models.promise import DAGPromise, as_uuid
from dagorama.user_code.names import class_name

if TYPE_CHECKING:
    from dagorama.graph.options import Codec
    from dagorama.models.method_types import EntryOf, OnlyAny
    from dagorama.models.state import Retried

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class DAGDefinition(ABC):  # noqa: B024  # its abstract method is hidden from type checkers
    """A graph: subclass it, decorate its methods, and call an object of the subclass.

    The call runs the entry point and returns `(instance, promise)`, or a coroutine that returns them if the entry point
    is async. If the entry point raises, nothing is submitted. In a running node, the new instance is submitted with
    that node's result; the node may return its promise.
    """

    def __init_subclass__(cls, *, codec: Codec | None = None, **kwargs: Any) -> None:
        """Take the codec of the decorated methods in the class body that do not name one."""
        super().__init_subclass__(**kwargs)
        prepare(cls, DAGDefinition, codec, sys._getframe(1), in_node=current_attempt.get() is not None)

    # Type checkers see the constructor of the subclass.
    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if (args or kwargs) and cls.__init__ is object.__init__:
                raise TypeError(f"{cls.__name__}() takes no arguments")
            if not is_prepared(cls) and cls is not DAGDefinition:
                prepare(cls, DAGDefinition, None, sys._getframe(1), in_node=False)
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

        __signature__ = instance_type.ConstructorSignature()

    @overload
    def __call__(
        self: EntryOf[P, OnlyAny], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[DAGInstance, DAGPromise[Any]]: ...
    # An async entry point is also a sync one that returns a coroutine; checkers take the first overload that fits.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self: EntryOf[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, tuple[DAGInstance, DAGPromise[R]]]: ...
    @overload
    def __call__(self: EntryOf[P, R], *args: P.args, **kwargs: P.kwargs) -> tuple[DAGInstance, DAGPromise[R]]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return run_entry(Launch(self, instance_within, set_scope), args, kwargs)

    @overload
    @classmethod
    def attach(
        cls: type[EntryOf[P, OnlyAny]], instance_id: UUID | str | None = None, *, id: str | None = None
    ) -> tuple[DAGInstance, DAGPromise[Any]]: ...
    @overload
    @classmethod
    def attach(
        cls: type[EntryOf[P, Coroutine[Any, Any, R]]], instance_id: UUID | str | None = None, *, id: str | None = None
    ) -> tuple[DAGInstance, DAGPromise[R]]: ...
    @overload
    @classmethod
    def attach(
        cls: type[EntryOf[P, R]], instance_id: UUID | str | None = None, *, id: str | None = None
    ) -> tuple[DAGInstance, DAGPromise[R]]: ...
    @classmethod
    def attach(cls: Any, instance_id: UUID | str | None = None, *, id: str | None = None) -> Any:
        """Return an instance that another process has created, and the promise of its entry point.

        Pass either `instance_id` or the `id` that `start(..., id=...)` has given to the instance. Raises NotFound if
        the broker has no such instance or it has no entry point, WrongInstance if it belongs to another definition,
        DefinitionNotRegistered if this definition needs constructor arguments.
        """
        name = class_name(cls)
        if (instance_id is None) is (id is None):
            raise TypeError("attach() takes either the UUID of an instance or the ID that start() has given to it")
        uuid = as_uuid(instance_id, "an instance's ID").bytes if instance_id is not None else b""
        info = connection().get_instance(uuid) if uuid else connection().get_named_instance(name, check_id(id))
        promise = entry_promise(name, info)
        return DAGInstance(UUID(bytes=info.instance), instantiate(cls)), promise

    @classmethod
    def __subclasshook__(cls, subclass: type) -> bool:
        """Let the type of an instance count as the class of its definition: `issubclass(type(self), MyTask)`."""
        return issubclass(instance_type.plain(subclass), cls) if type(subclass) is InstanceType else NotImplemented

    if TYPE_CHECKING:
        # For pyright, only plain methods could override a method.
        entrypoint: Any
    else:

        @abstractmethod
        def entrypoint(self, *args: Any, **kwargs: Any) -> Any:
            """Run when the definition is called: a decorated method, or plain code that makes decorated calls."""


def run_entry(launch: Launch[DAGInstance], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the entry point and submit the instance; return it with the result, or a coroutine if the entry is async.

    The caller of this function counts as the function that the user has called.
    """
    try:
        with launch.running():
            result = launch.instance.entrypoint(*args, **kwargs)
    except BaseException:
        launch.scope.close()
        raise
    if isawaitable(result) and not isinstance(result, DAGPromise):
        return launch.finish_later(result)
    return launch.finish(result)


#: The code of the frame that calls the entry point; its caller's caller is the user's code.
ENTRY_CODE = run_entry.__code__


class DAGInstance:
    """One run of a definition, and `self` inside its methods: it has all attributes of the definition.

    Methods get the instance as `self`, so that their decorated calls become nodes of it. An attribute that is set on
    an instance hides the definition's, for this instance alone. Instances can be pickled, and
    `DAGInstance(UUID(text), definition)` returns one in another process. `cancel` and `retry` call `dagorama.cancel`
    and `dagorama.retry_failed`, unless the definition has attributes with these names. `type(self)` behaves as the
    class of the definition.
    """

    # Attributes that are set on an instance are in its __dict__; all others come from the definition.
    __slots__ = ("__dict__", "__weakref__", "_dagorama_id", "_dagorama_scope", "definition")

    definition: DAGDefinition
    _dagorama_id: bytes
    _dagorama_scope: CallScope

    def __new__(cls, instance_id: UUID | str, definition: DAGDefinition) -> DAGInstance:
        kind = type(definition)
        return _new(_types.get(id(kind)) or _type_of(kind))

    def __init__(self, instance_id: UUID | str, definition: DAGDefinition) -> None:
        _set_id(self, as_uuid(instance_id, "an instance's ID").bytes)
        _set_definition(self, definition)
        set_scope(self, ImmediateScope(definition))

    @property
    def instance_id(self) -> UUID:
        return UUID(bytes=self._dagorama_id)

    if TYPE_CHECKING:

        def cancel(self, promise: DAGPromise[Any] | None = None) -> int:
            """Call dagorama.cancel."""
            ...

        def retry(
            self, promise: DAGPromise[Any] | None = None, *, downstream: bool = False, new_code: bool = False
        ) -> Retried:
            """Call dagorama.retry_failed."""
            ...

    else:
        # isinstance(self, MyTask) and super() read it; isinstance(self, DAGInstance) is true as well.
        @property
        def __class__(self) -> type[DAGDefinition]:
            return type(self.definition)

    def __getattr__(self, name: str) -> Any:
        if name in OF_INSTANCES:
            raise AttributeError(name)  # it has no value yet
        definition = self.definition
        cls = type(definition)
        found = on_class(cls, name)
        if type(found) is FunctionType and name not in definition.__dict__:
            return MethodType(found, self)
        if is_bindable(found) and (is_data_descriptor(found) or name not in definition.__dict__):
            return type(found).__get__(found, self, cls)
        if name in _VERBS and not hasattr(definition, name):
            return MethodType(_VERBS[name], self)
        value = getattr(definition, name)
        # A bound method that the definition's __init__ has stored is also a method of this instance.
        if type(value) is MethodType and value.__self__ is definition:
            return MethodType(value.__func__, self)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in OF_INSTANCES:
            cls = type(self.definition)
            raise refusal(name, cls, cls)
        found = on_class(type(self.definition), name)
        if is_bindable(found) and hasattr(type(found), "__set__"):
            type(found).__set__(found, self, value)
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        if name in OF_INSTANCES:
            cls = type(self.definition)
            raise refusal(name, cls, cls)
        found = on_class(type(self.definition), name)
        if is_bindable(found) and hasattr(type(found), "__delete__"):
            type(found).__delete__(found, self)
        elif name in self.__dict__ or not hasattr(self, name):
            object.__delattr__(self, name)
        else:
            text = f"{name!r} is an attribute of the definition, which other instances share"
            raise AttributeError(text, name=name, obj=self)

    def __dir__(self) -> list[str]:
        return sorted({*dir(self.definition), *self.__dict__, *_VERBS, "definition", "instance_id"})

    def __reduce__(self) -> tuple[Callable[..., DAGInstance], tuple[object, ...]]:
        return _restore_instance, (self._dagorama_id, self.definition, self.__dict__)

    def __repr__(self) -> str:
        return f"<{type(self.definition).__qualname__} instance {self.instance_id}>"


# Methods of the class would hide attributes of a definition.
_VERBS: dict[str, Callable[..., int]] = {"cancel": cancel, "retry": retry_failed}

# These bypass DAGInstance.__setattr__, which reads the definition first.
_set_id: Callable[[DAGInstance, bytes], None] = DAGInstance.__dict__["_dagorama_id"].__set__
_set_definition: Callable[[DAGInstance, DAGDefinition], None] = DAGInstance.__dict__["definition"].__set__
set_scope: Callable[[DAGInstance, CallScope], None] = DAGInstance.__dict__["_dagorama_scope"].__set__


def instance_within(instance_id: bytes, definition: DAGDefinition, scope: CallScope) -> DAGInstance:
    """Return an instance whose decorated calls go to `scope`."""
    cls = type(definition)
    instance = _new(_types.get(id(cls)) or _type_of(cls))
    _set_id(instance, instance_id)
    _set_definition(instance, definition)
    set_scope(instance, scope)
    return instance


#: By the ID of the class of the definition; an entry is removed with its class.
_types: dict[int, type[DAGInstance]] = {}
_new: Callable[[type[DAGInstance]], DAGInstance] = object.__new__


def _type_of(cls: type[DAGDefinition]) -> type[DAGInstance]:
    """Return the one type of instances of `cls`, also if two threads make it at once."""
    key = id(cls)
    return _types.setdefault(key, instance_type.make_type(DAGInstance, cls, lambda: _types.pop(key, None)))


@stored.named("instance")
def _restore_instance(instance_id: bytes, definition: DAGDefinition, attributes: dict[str, Any]) -> DAGInstance:
    """Return an instance from its pickle."""
    instance = instance_within(instance_id, definition, ImmediateScope(definition))
    instance.__dict__.update(attributes)
    return instance
