"""Definitions by name: how a process finds the one that it registered, or makes one like a caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from dagorama.errors import UnknownToBroker, WrongInstance
from dagorama.graph import shipping
from dagorama.graph.constructor_arguments import made_again
from dagorama.user_code.names import class_name

if TYPE_CHECKING:
    from dagorama.api.broker_pb2 import InstanceInfo

D = TypeVar("D")


def instantiate(cls: type[D]) -> D:
    """Return the definition of a class in this process: the registered one, or one that is made without arguments.

    Raises DefinitionNotRegistered if it cannot be made.
    """
    return _registered(cls) or definition_like(cls, None)


def definition_like(cls: type[D], constructor: bytes | None) -> D:
    """Return a definition like that of a caller, whose call came with `constructor`; None: it had no arguments.

    Raises DefinitionNotRegistered if it cannot be made here, DefinitionDiffers if another one is registered, and what
    the constructor raises.
    """
    found: D = made_again(cls, constructor, _registered(cls))
    return found


def _registered(cls: type[D]) -> D | None:
    known = shipping.registered.get(class_name(cls))
    return known if type(known) is cls else None


def check_attached(identifier: UUID, info: InstanceInfo, name: str) -> None:
    """Raise WrongInstance if an instance is of another definition than `name`, UnknownToBroker if it has no entry."""
    if info.definition and not _same_definition(info.definition, name):
        raise WrongInstance(f"instance {identifier} is of {info.definition}, not of {name}")
    if not info.entry:
        raise UnknownToBroker(f"instance {identifier} has no entry point to promise its value", "NOT_FOUND")


def _same_definition(one: str, other: str) -> bool:
    # A script's module is `__main__` where it runs and has its own name where it is imported.
    (module, path), (other_module, other_path) = one.split(":", 1), other.split(":", 1)
    return path == other_path and (module == other_module or "__main__" in (module, other_module))
