"""Names to functions and back: how a worker finds what a node runs.

The rule: a name leads to a decorated method of a DAGDefinition or to an error that says what to do; nothing else
is ever called.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from importlib import import_module
from inspect import isclass, unwrap
from types import MethodType
from typing import Any, NamedTuple
from uuid import UUID

from dagorama import by_value
from dagorama.decorated import Decorated, decorated_method, of_wrapper, original, wire_name
from dagorama.definition import DAGDefinition, class_name, instantiate, is_local, local_classes, registered
from dagorama.errors import FunctionNotFound
from dagorama.instance import DAGInstance

_only: frozenset[str] | None = None  # modules whose definitions may be found; None: any

FOR_LOCAL_WORKERS = "workers that this process launches get it, others need it in a module that they can import"


class Found(NamedTuple):
    """A name's function: the definition to run it on, the decorated method and what is known of it."""

    definition: DAGDefinition
    wrapper: Callable[..., Any]
    decorated: Decorated


def register_definition(definition: DAGDefinition) -> None:
    """Nodes of this definition's class run on this object in this process and in workers that it launches."""
    registered[class_name(type(definition))] = definition


def function_to_name(func: Any) -> str:
    """The name of a function, a class, a definition, an instance, or of a method of one of these."""
    if isinstance(func, (DAGInstance, DAGDefinition)):
        return class_name(type(func.definition) if isinstance(func, DAGInstance) else type(func))
    if isclass(func):
        return class_name(func)
    if isinstance(func, MethodType):
        return _method_to_name(func)
    plain = unwrap(func)
    return f"{plain.__globals__['__name__']}:{plain.__qualname__}"


def _method_to_name(method: MethodType) -> str:
    owner, plain = method.__self__, original(method.__func__)
    if plain is None or isclass(owner):
        return function_to_name(method.__func__)
    return wire_name(type(owner.definition) if isinstance(owner, DAGInstance) else type(owner), plain)


def name_to_function(name: str, instance_id: UUID | str) -> Callable[..., Any]:
    """The decorated method bound to that instance; raises FunctionNotFound or DefinitionNotRegistered.

    `greedy_execution=True` runs it, and its `original_fn` is the plain function.
    """
    found = find(name)
    return MethodType(found.wrapper, DAGInstance(instance_id, found.definition))


def find(name: str) -> Found:
    """What a name stands for in this process; raises FunctionNotFound or DefinitionNotRegistered."""
    path, _, base = name.partition("@")
    class_path, _, method = path.rpartition(".")
    if ":" not in class_path:
        raise FunctionNotFound(f"{name!r} does not name a method of a definition as module:Class.method")
    definition = definition_named(class_path)
    wrapper = decorated_method(type(definition), method, base)
    if wrapper is None:
        raise FunctionNotFound(
            f"{class_path} has no @dagorama method {method!r}{base and f' from {base}'} here; "
            "this process may have another version of the code"
        )
    return Found(definition, wrapper, of_wrapper(wrapper))


def run_only(modules: Iterable[str]) -> None:
    """From now on nothing is found in this process but definitions of these modules."""
    global _only
    _only = frozenset(modules)


def definition_named(name: str) -> DAGDefinition:
    """The definition of "module:Class": registered, or made from its class without arguments."""
    if _only is not None and name.partition(":")[0] not in _only:
        raise FunctionNotFound(
            f"{name} is of none of the modules that this worker was given with --import, and it runs no others"
            " (--only-imported)"
        )
    load_shipped(name)
    if name in registered:
        return registered[name]
    cls = _shipped_classes.get(name) or (local_classes.get(name) if is_local(name) else None) or _imported(name)
    if not (isclass(cls) and issubclass(cls, DAGDefinition)):
        raise FunctionNotFound(f"{name} is not a DAGDefinition")
    return instantiate(cls)


def _imported(name: str) -> Any:
    module_name, _, path = name.partition(":")
    if "<locals>" in path:
        raise FunctionNotFound(f"{name} is made inside a function: {FOR_LOCAL_WORKERS}{_why_not_shipped(name)}")
    try:
        found: Any = import_module(module_name)
    except (Exception, SystemExit) as error:
        raise FunctionNotFound(
            f"{name} cannot be found: importing {module_name} raised {type(error).__name__}: {error}; "
            "install it here, or add its folder to PYTHONPATH"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise FunctionNotFound(_not_in_module(name, module_name))
        found = getattr(found, part)
    return found


def _not_in_module(name: str, module_name: str) -> str:
    if module_name == "__main__":
        return f"{name} belongs to the script that made the node: {FOR_LOCAL_WORKERS}{_why_not_shipped(name)}"
    return f"{name} is not in the module {module_name} that this process imports; it may have another version"


# --- definitions for workers that this process launches ----------------------------------------------


class _Parcel(NamedTuple):
    """A pickled dict of classes and one of registered definitions, and their names."""

    names: list[str]
    data: bytes


_shipped: dict[str, _Parcel] = {}
_shipped_classes: dict[str, type[DAGDefinition]] = {}
_not_shipped: dict[str, str] = {}


def local_definitions() -> list[tuple[str, type[DAGDefinition]]]:
    """The classes that a child process cannot import, by name."""
    return sorted(local_classes.items(), key=lambda item: item[0])


def pack_definitions() -> bytes:
    """Local classes and registered definitions, for unpack_definitions in a child; empty when there are none.

    What cannot be pickled stays behind, and the child says why when it is asked for it.
    """
    classes = dict(local_definitions())
    if not classes and not registered:
        return b""
    failures: dict[str, str] = {}
    try:
        parcels = [_packed(classes, registered)]
    except Exception:
        parcels, failures = _packed_one_by_one(classes)
    return pickle.dumps(([tuple(parcel) for parcel in parcels], failures))


def unpack_definitions(data: bytes) -> None:
    """Takes what pack_definitions returned; each definition is unpickled when it is first needed."""
    if not data:
        return
    parcels, failures = pickle.loads(data)
    for names, content in parcels:
        _shipped.update(dict.fromkeys(names, _Parcel(names, content)))
    _not_shipped.update(failures)


def load_shipped(name: str) -> None:
    """Unpickles the parcel that has the definition of that name, if there is one."""
    parcel = _shipped.get(name)
    if parcel is None:
        return
    try:
        classes, definitions = pickle.loads(parcel.data)
    except Exception as error:
        raise FunctionNotFound(f"{name} was sent here but cannot be read ({type(error).__name__}: {error})") from error
    for each in parcel.names:
        _shipped.pop(each, None)
    _shipped_classes.update(classes)
    local_classes.update(classes)
    registered.update(definitions)


def _packed(classes: dict[str, type[DAGDefinition]], definitions: dict[str, DAGDefinition]) -> _Parcel:
    # One pickle, so that what the definitions share stays shared.
    return _Parcel(sorted({*classes, *definitions}), by_value.dumps((classes, definitions)))


def _packed_one_by_one(classes: dict[str, type[DAGDefinition]]) -> tuple[list[_Parcel], dict[str, str]]:
    parcels, failures = [], {}
    for name in sorted({*classes, *registered}):
        one_class = {name: classes[name]} if name in classes else {}
        one_definition = {name: registered[name]} if name in registered else {}
        try:
            parcels.append(_packed(one_class, one_definition))
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"
    return parcels, failures


def _why_not_shipped(name: str) -> str:
    return f"; it could not be sent here ({_not_shipped[name]})" if name in _not_shipped else ""
