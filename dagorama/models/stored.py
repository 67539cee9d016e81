"""The names that pickles of stored values contain: `dagorama.models.stored`, and one name for each function or class.

The rule: these names are part of the format of stored values. They may be added to, never renamed or removed. The
functions and classes live in the modules that they belong to, which may be renamed: `_HOMES` is the list of them.

Public classes are not listed here: pickles name them by their own modules, which are part of the format too. These are
Failure, State, Retried, CurrentNode, DAGPromise, DAGArguments, DAGDefinition, the errors and the retry policies.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")

#: The module that defines each name, imported when a pickle is read that contains the name.
_HOMES = {
    # promises and put() references that are pickled by themselves
    "promise": "dagorama.models.promise",
    "outcome": "dagorama.models.outcome",
    "value_ref": "dagorama.models.value_ref",
    # values that an envelope supplies
    "promise_value": "dagorama.values.pickling",
    "outcome_value": "dagorama.values.pickling",
    "put_value": "dagorama.values.out_of_band",
    # definitions and instances
    "instance": "dagorama.definition",
    "instance_type": "dagorama.models.instance_type",
    "constructed": "dagorama.graph.constructor_arguments",
    "Unsent": "dagorama.graph.constructor_arguments",
    "DecoratedFunction": "dagorama.calls.functions",
    "Options": "dagorama.graph.options",
    "Cache": "dagorama.graph.cache",
    "Limit": "dagorama.graph.rates",
    "Rate": "dagorama.graph.rates",
    # code that other processes cannot import
    "code": "dagorama.values.by_value",
    "imported": "dagorama.values.by_value",
    "sentinel": "dagorama.values.by_value",
    "cached_function": "dagorama.values.standard_objects",
    "type_alias": "dagorama.values.standard_objects",
    "single_dispatch": "dagorama.values.standard_objects",
    "fill_dispatch": "dagorama.values.standard_objects",
    "local_class": "dagorama.values.by_value",
    "local_function": "dagorama.values.by_value",
    "fill_local": "dagorama.values.by_value",
}


def named(name: str) -> Callable[[T], T]:
    """Return a decorator for a function or class that pickles refer to by this name of this module."""

    def publish(found: T) -> T:
        published: Any = found
        published.__module__, published.__qualname__ = __name__, name
        globals()[name] = found
        return found

    return publish


def global_name(name: str) -> tuple[str, str]:
    """Return the module and name that a pickle contains, as `Unpickler.find_class` gets them."""
    return __name__, name


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(home)
    return globals()[name]
