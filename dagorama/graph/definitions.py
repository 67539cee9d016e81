"""Definitions for nodes: the registered one of a class, or one constructed with the arguments of the caller.

The rule: a worker runs a node on a definition like the caller's, or raises an error that says why it cannot.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID

from dagorama.errors import DefinitionDiffers, DefinitionNotRegistered, NotFound, WrongInstance
from dagorama.graph import shipping
from dagorama.graph.constructor_arguments import (
    Constructed,
    Unsent,
    constructed,
    is_resource,
    note_packed,
    unpacked,
)
from dagorama.graph.hooks import find_hook
from dagorama.graph.options import set_codec
from dagorama.graph.reserved import check_class
from dagorama.models.promise import DAGPromise, restore_promise
from dagorama.user_code.names import class_name

if TYPE_CHECKING:
    from dagorama.api.broker_pb2 import InstanceInfo
    from dagorama.graph.options import Codec

D = TypeVar("D")

#: The largest number of definitions constructed for nodes that a process keeps.
MADE = 128

_made: OrderedDict[tuple[type, bytes], Any] = OrderedDict()


def prepare(cls: type, base: type, codec: Codec | None, frame: FrameType, *, in_node: bool) -> None:
    """Prepare a class that extends `base`, DAGDefinition; `frame` runs the code around the class.

    `in_node`: a running node has made the class. Raises ReservedName, ValueError and TypeMismatch.
    """
    check_class(cls, own=(base,))
    set_codec(cls, codec, frame)
    find_hook(cls)
    shipping.add_definition(cls, in_node)


def is_prepared(cls: type) -> bool:
    """Return whether the class was prepared: an `__init_subclass__` of a base may have hidden ours."""
    return cls in shipping.definitions


def instantiate(cls: type[D]) -> D:
    """Return the registered definition of a class, or one constructed without arguments.

    Raises DefinitionNotRegistered if it cannot be constructed.
    """
    return _registered(cls) or definition_like(cls, None)


def definition_like(cls: type[D], constructor: bytes | None) -> D:
    """Return a definition like the caller's, whose packed arguments are `constructor`; None means no arguments.

    It is the registered one if that has the same arguments. Raises DefinitionNotRegistered if the arguments could not
    be pickled, DefinitionDiffers if the registered definition has other ones, and exceptions of the constructor.
    """
    registered = _registered(cls)
    if registered is not None:
        difference = _difference(cls, constructed(registered), unpacked(constructor))
        if difference is None:
            return registered
        if difference.is_final:
            raise DefinitionDiffers(
                f"{class_name(cls)} is registered here with {difference.text}: construct both with the same arguments, "
                "or register none"
            )
    found: D = _constructed_once(cls, constructor)
    return found


def _registered(cls: type[D]) -> D | None:
    known = shipping.registered.get(class_name(cls))
    return known if type(known) is cls else None


# --- constructed for a node --------------------------------------------------------------------------------


def _constructed_once(cls: type, data: bytes | None) -> Any:
    key = cls, data or b""
    definition = _made.get(key)
    if definition is not None:
        _made.move_to_end(key)
        return definition
    definition = _made[key] = _construct(cls, data)
    if len(_made) > MADE:
        _made.popitem(last=False)
    return definition


@contextmanager
def constructed_again() -> Iterator[None]:
    """Construct definitions for the nodes of the block again, as a new process does."""
    kept = list(_made.items())
    _made.clear()
    try:
        yield
    finally:
        _made.clear()
        _made.update(kept)


def _construct(cls: type, data: bytes | None) -> Any:
    sent = unpacked(data)
    if unsent := _unsent(sent):
        raise DefinitionNotRegistered(
            f"{class_name(cls)} was constructed with {unsent}, which cannot be pickled, and none is registered "
            f"here; call register_definition({cls.__qualname__}(...)) in a module that the worker imports "
            "(worker --import MODULE)"
        )
    definition = cls(*sent.args, **sent.kwargs) if sent.args or sent.kwargs else _construct_without_arguments(cls)
    for name, value in {**sent.contents, **sent.changed}.items():
        object.__setattr__(definition, name, value)
    if data:
        note_packed(definition, data)
    return definition


def _construct_without_arguments(cls: type) -> Any:
    try:
        return cls()
    except Exception as error:
        raise DefinitionNotRegistered(
            f"{class_name(cls)}() cannot be made without arguments ({type(error).__name__}: {error}); call "
            f"register_definition({cls.__qualname__}(...)) in each process that needs it, for a worker in a "
            "module that it imports (worker --import MODULE)"
        ) from error


def _unsent(sent: Constructed) -> str:
    """Return the arguments that could not be pickled, as text."""
    positional = [part.type for part in sent.args if isinstance(part, Unsent)]
    named = [
        f"{name}, a {part.type}" for parts in (sent.kwargs, sent.changed) for name, part in parts.items()
        if isinstance(part, Unsent)
    ]  # fmt: skip
    return " and ".join([*(f"a {name}" for name in positional), *named])


# --- compared with the registered one ----------------------------------------------------------------------


class _Difference(NamedTuple):
    text: str
    is_final: bool  #: a definition like the caller's cannot be constructed from what the caller has sent


def _difference(cls: type, ours: Constructed, sent: Constructed) -> _Difference | None:
    """Return how the registered definition differs from the caller's; arguments that cannot be pickled are equal."""
    one, other = _bound(cls, ours), _bound(cls, sent)
    if one is None or other is None:
        return None
    resources = [name for name, part in {**one, **other}.items() if is_resource(one.get(name, part))]
    for name in sorted({*one, *other} - set(resources)):
        if name not in one or name not in other or not _same(one[name], other[name]):
            text = f"{name}={_shown(one, name)}, and the caller has {name}={_shown(other, name)}"
            return _Difference(text, bool(resources) or bool(_unsent(sent)))
    return None


def _bound(cls: type, found: Constructed) -> dict[str, Any] | None:
    """Return arguments by name with defaults, and assigned attributes; None if the constructor does not take them."""
    try:
        call = signature(cls.__init__).bind(None, *found.args, **found.kwargs)  # type: ignore[misc]  # as type() calls it
    except (TypeError, ValueError):
        return None
    call.apply_defaults()
    names = dict(list(call.arguments.items())[1:])
    return {**names, **{f".{name}": value for name, value in found.changed.items()}}


def _same(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:  # the comparison of two arrays is an array
        return pickle.dumps(one) == pickle.dumps(other)


def _shown(parts: Mapping[str, Any], name: str) -> str:
    return repr(parts[name])[:100] if name in parts else "nothing"


# --- attached ----------------------------------------------------------------------------------------------


def _check_attached(identifier: UUID, info: InstanceInfo, name: str) -> None:
    """Raise WrongInstance if the instance has another definition than `name`, NotFound if it has no entry."""
    if info.definition and not _is_same_definition(info.definition, name):
        raise WrongInstance(f"instance {identifier} is of {info.definition}, not of {name}")
    if not info.entry:
        raise NotFound(f"instance {identifier} has no entry point to promise its value", "NOT_FOUND")


def _is_same_definition(one: str, other: str) -> bool:
    # The module of a script is `__main__` in its own process and has its own name in processes that import it.
    (module, path), (other_module, other_path) = one.split(":", 1), other.split(":", 1)
    return path == other_path and (module == other_module or "__main__" in (module, other_module))


def entry_promise(definition: str, info: InstanceInfo) -> DAGPromise[Any]:
    """Return the promise of the entry point of an instance. Raises NotFound or WrongInstance."""
    _check_attached(UUID(bytes=info.instance), info, definition)
    return restore_promise(info.entry, info.instance, f"{definition}.entrypoint", None)
