"""Names to functions and back: a worker finds the function of a node by its name.

The rule: a name leads to a decorated method of a DAGDefinition, or to an error that says what to do. No other function
is ever called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from inspect import isclass, unwrap
from types import MethodType, ModuleType
from typing import Any, NamedTuple
from uuid import UUID

from dagorama.calls.functions import DecoratedFunction, decorated_method, from_wrapper
from dagorama.definition import DAGDefinition, DAGInstance
from dagorama.errors import FunctionNotFound
from dagorama.graph import shipping
from dagorama.graph.definitions import instantiate
from dagorama.user_code.class_code import code_of
from dagorama.user_code.modules import is_filled, local_modules
from dagorama.user_code.names import class_name, plain_function, wire_name

_only: frozenset[str] | None = None  # modules whose definitions may be found; None: any

FOR_LOCAL_WORKERS = "workers that this process launches get it, others need it in a module that they can import"


class Found(NamedTuple):
    """The function of a name: the class of its definition, the decorated method, and its options."""

    cls: type[DAGDefinition]
    wrapper: Callable[..., Any]
    decorated: DecoratedFunction

    @property
    def definition(self) -> DAGDefinition:
        """The registered definition, or one made without arguments; raises DefinitionNotRegistered."""
        return instantiate(self.cls)


def register_definition(definition: DAGDefinition) -> None:
    """Run nodes of the definition's class on this object, in this process and in workers that it launches."""
    shipping.registered[class_name(type(definition))] = definition


def function_to_name(func: Any) -> str:
    """Return the name of a function, class, definition or instance, or of a method of one of these."""
    if isinstance(func, (DAGInstance, DAGDefinition)):
        return class_name(type(func.definition) if isinstance(func, DAGInstance) else type(func))
    if isclass(func):
        return class_name(func)
    if isinstance(func, MethodType):
        return _method_to_name(func)
    plain = unwrap(func)
    return f"{plain.__globals__['__name__']}:{plain.__qualname__}"


def _method_to_name(method: MethodType) -> str:
    owner, plain = method.__self__, plain_function(method.__func__)
    if plain is None or isclass(owner):
        return function_to_name(method.__func__)
    return wire_name(type(owner.definition) if isinstance(owner, DAGInstance) else type(owner), plain)


def name_to_function(name: str, instance_id: UUID | str) -> Callable[..., Any]:
    """Return the decorated method bound to an instance; raise FunctionNotFound or DefinitionNotRegistered.

    `greedy_execution=True` runs it, and its `original_fn` is the undecorated function.
    """
    found = find(name)
    return MethodType(found.wrapper, DAGInstance(instance_id, found.definition))


def find(name: str, code_hash: str = "", class_code: str = "") -> Found:
    """Return the function with a name in this process; raise FunctionNotFound.

    If there are several versions of its class, the one is used that has this code, or else whose method has this hash.
    """
    path, _, base = name.partition("@")
    class_path, _, method = path.rpartition(".")
    if ":" not in class_path:
        raise FunctionNotFound(f"{name!r} does not name a method of a definition as module:Class.method")
    cls = _class_named(class_path, shipping.Version(f"{method}@{base}" if base else method, code_hash, class_code))
    wrapper = decorated_method(cls, method, base)
    if wrapper is None:
        raise FunctionNotFound(
            f"{class_path} has no @dagorama method {method!r}{base and f' from {base}'} here; "
            "this process may have another version of the code"
        )
    return Found(cls, wrapper, from_wrapper(wrapper))


def run_only(modules: Iterable[str]) -> None:
    """Find only definitions of these modules in this process from now on."""
    global _only
    _only = frozenset(modules)


def _class_named(name: str, wanted: shipping.Version) -> type[DAGDefinition]:
    """Return the class of "module:Class"; raise FunctionNotFound."""
    if _only is not None and name.partition(":")[0] not in _only:
        raise FunctionNotFound(
            f"{name} is in none of the modules that this worker imports (--import), and it runs no others"
            " (--only-imported)"
        )
    shipping.load_registered(name)
    cls = _sent_class(name, wanted) or _local_class(name, wanted) or _imported(name, wanted)
    if not (isclass(cls) and issubclass(cls, DAGDefinition)):
        raise FunctionNotFound(f"{name} is not a DAGDefinition")
    return cls


def _sent_class(name: str, wanted: shipping.Version) -> type | None:
    """Return the class that the launching program has sent; None if it has not, or if only an import gives its code.

    A program that reloads a module sends the class that was replaced, because only its older nodes need it.
    """
    sent = shipping.sent_class(name, wanted)
    if sent is None or not wanted.hash or wanted.fit(code_of(sent))[0] or is_filled(name.partition(":")[0]):
        return sent
    with suppress(FunctionNotFound):
        found = _imported(name, wanted)
        if isclass(found) and issubclass(found, DAGDefinition) and wanted.fit(code_of(found))[0]:
            return None
    return sent


def _local_class(name: str, wanted: shipping.Version) -> type | None:
    """Return a class of this process that cannot be imported; if there are several, the one that fits best."""
    if not ("<locals>" in name or name.partition(":")[0] in local_modules):
        return None
    found = [cls for cls in list(shipping.definitions) if class_name(cls) == name]
    return max(found, key=lambda cls: wanted.fit(code_of(cls)), default=None)


def _imported(name: str, wanted: shipping.Version) -> Any:
    module_name, _, path = name.partition(":")
    found: Any = _module_of(name, module_name)
    if "<locals>" in path:
        cls = _local_class(name, wanted)  # the module may have made it during the import
        if cls is None:
            raise FunctionNotFound(f"{name} is made inside a function: {FOR_LOCAL_WORKERS}{_why_not_shipped(name)}")
        return cls
    for part in path.split("."):
        if not hasattr(found, part):
            raise FunctionNotFound(_not_in_module(name, module_name))
        found = getattr(found, part)
    return found


def _module_of(name: str, module: str) -> ModuleType:
    try:
        return import_module(module)
    except (Exception, SystemExit) as error:
        raise FunctionNotFound(
            f"{name} cannot be found: importing {module} raised {type(error).__name__}: {error}; "
            "install it here, or add its folder to PYTHONPATH"
        ) from error


def _not_in_module(name: str, module_name: str) -> str:
    if module_name == "__main__":
        return f"{name} belongs to the script that made the node: {FOR_LOCAL_WORKERS}{_why_not_shipped(name)}"
    return f"{name} is not in the module {module_name} that this process imports; it may have another version"


def _why_not_shipped(name: str) -> str:
    why = shipping.failures.get(name)
    return "" if why is None else f"; it could not be sent here ({why})"
