"""An instance: one run of a definition, and `self` inside its methods.

The rule: it behaves as its definition and never changes it; what is set on an instance stays with that instance.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from dagorama.client.control import cancel, retry_failed
from dagorama.graph.reserved import OF_INSTANCES, refusal
from dagorama.graph.scope import DirectScope, Scope
from dagorama.models.identifiers import as_uuid
from dagorama.models.instance_type import make_type

if TYPE_CHECKING:
    from dagorama.definition import DAGDefinition
    from dagorama.models.promise import DAGPromise
    from dagorama.models.retried import Retried

R = TypeVar("R")


class DAGInstance:
    """One run of a definition, and `self` inside its methods: it has what the definition has.

    Methods get the instance as `self`, so that their decorated calls become nodes of it. An attribute that is
    set on it hides the definition's and is seen by nobody else. It pickles, and
    `DAGInstance(UUID(text), definition)` gives it back in another process. `cancel` is that of
    `dagorama.client.control`, and `retry` its `retry_failed`, unless the definition has something of that name.
    Its type, `type(self)`, answers as the class of the definition does.
    """

    # What an instance sets on itself is its __dict__; everything else comes from the definition.
    __slots__ = ("__dict__", "__weakref__", "_dagorama_id", "_dagorama_scope", "definition")

    definition: DAGDefinition
    _dagorama_id: bytes
    _dagorama_scope: Scope

    def __new__(cls, instance_id: UUID | str, definition: DAGDefinition) -> DAGInstance:
        kind = type(definition)
        return _new(_types.get(id(kind)) or _type_of(kind))

    def __init__(self, instance_id: UUID | str, definition: DAGDefinition) -> None:
        _set_id(self, as_uuid(instance_id, "an instance's id").bytes)
        _set_definition(self, definition)
        set_scope(self, DirectScope(definition))

    @property
    def instance_id(self) -> UUID:
        return UUID(bytes=self._dagorama_id)

    if TYPE_CHECKING:

        def cancel(self, promise: DAGPromise[Any] | None = None) -> int:
            """See dagorama.cancel."""
            ...

        def retry(
            self, promise: DAGPromise[Any] | None = None, *, downstream: bool = False, new_code: bool = False
        ) -> Retried:
            """See dagorama.retry_failed."""
            ...

    else:
        # isinstance(self, MyTask) and super() ask for it; isinstance(self, DAGInstance) holds as well.
        @property
        def __class__(self) -> type[DAGDefinition]:
            return type(self.definition)

    def __getattr__(self, name: str) -> Any:
        if name in OF_INSTANCES:
            raise AttributeError(name)  # not filled yet
        definition = self.definition
        cls = type(definition)
        found = _on_class(cls, name)
        if type(found) is FunctionType and name not in definition.__dict__:
            return MethodType(found, self)
        if _is_ours_to_bind(found) and (_is_data(found) or name not in definition.__dict__):
            return type(found).__get__(found, self, cls)
        if name in _VERBS and not hasattr(definition, name):
            return MethodType(_VERBS[name], self)
        value = getattr(definition, name)
        # A method that the definition's __init__ stored is still a method of this instance.
        if type(value) is MethodType and value.__self__ is definition:
            return MethodType(value.__func__, self)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in OF_INSTANCES:
            cls = type(self.definition)
            raise refusal(name, cls, cls)
        found = _on_class(type(self.definition), name)
        if _is_ours_to_bind(found) and hasattr(type(found), "__set__"):
            type(found).__set__(found, self, value)
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        if name in OF_INSTANCES:
            cls = type(self.definition)
            raise refusal(name, cls, cls)
        found = _on_class(type(self.definition), name)
        if _is_ours_to_bind(found) and hasattr(type(found), "__delete__"):
            type(found).__delete__(found, self)
        elif name in self.__dict__ or not hasattr(self, name):
            object.__delattr__(self, name)
        else:
            raise AttributeError(f"{name!r} is the definition's, which other instances share", name=name, obj=self)

    def __dir__(self) -> list[str]:
        return sorted({*dir(self.definition), *self.__dict__, *_VERBS, "definition", "instance_id"})

    def __reduce__(self) -> tuple[Callable[..., DAGInstance], tuple[object, ...]]:
        return _restore_instance, (self._dagorama_id, self.definition, self.__dict__)

    def __repr__(self) -> str:
        return f"<{type(self.definition).__qualname__} instance {self.instance_id}>"


# Not methods of the class: those would hide a definition's own.
_VERBS: dict[str, Callable[..., int]] = {"cancel": cancel, "retry": retry_failed}

# Around our own __setattr__, which thinks of the definition first.
_set_id: Callable[[DAGInstance, bytes], None] = DAGInstance.__dict__["_dagorama_id"].__set__
_set_definition: Callable[[DAGInstance, DAGDefinition], None] = DAGInstance.__dict__["definition"].__set__
set_scope: Callable[[DAGInstance, Scope], None] = DAGInstance.__dict__["_dagorama_scope"].__set__


def instance_within(instance_id: bytes, definition: DAGDefinition, scope: Scope) -> DAGInstance:
    """An instance whose decorated calls go to `scope`."""
    cls = type(definition)
    instance = _new(_types.get(id(cls)) or _type_of(cls))
    _set_id(instance, instance_id)
    _set_definition(instance, definition)
    set_scope(instance, scope)
    return instance


#: by the id of the class of the definition; an entry goes with its class
_types: dict[int, type[DAGInstance]] = {}
_new: Callable[[type[DAGInstance]], DAGInstance] = object.__new__


def _type_of(cls: type[DAGDefinition]) -> type[DAGInstance]:
    """Make the type of instances of `cls` and remember it; of two threads that do, both get the same."""
    key = id(cls)
    return _types.setdefault(key, make_type(DAGInstance, cls, lambda: _types.pop(key, None)))


def _restore_instance(instance_id: bytes, definition: DAGDefinition, attributes: dict[str, Any]) -> DAGInstance:
    instance = instance_within(instance_id, definition, DirectScope(definition))
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
