"""Pickle by value the classes and functions that other processes cannot import, with cloudpickle.

A pickle contains a class with its name and a hash of its code. A reader that has a class with this name and this code
uses its own class, so that enum members, sentinels and dataclasses are the ones of the reader's script. If the reader's
class has other code, the value is refused. Functions are looked up in the same way, and otherwise read by value.

The rule: cloudpickle is loaded on first use. Code keeps the name of its file, so that tracebacks of other processes
show its lines; cloudpickle from 3.1.3 on omits it.
"""

from __future__ import annotations

import sys
from collections import ChainMap
from collections.abc import Callable, Mapping
from enum import Enum
from inspect import CO_OPTIMIZED
from io import BytesIO
from types import CodeType, FunctionType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet, WeakValueDictionary

from dagorama.errors import ValueNotReadable
from dagorama.models import stored
from dagorama.models.instance_type import InstanceType, reduced_type
from dagorama.user_code.class_code import known_hash, note_hash, object_hash
from dagorama.user_code.code_reader import with_nested
from dagorama.user_code.function_parts import overloads_of
from dagorama.user_code.modules import (
    MAIN,
    SPAWNED_MAIN,
    fill_in,
    is_filled,
    is_found,
    local_modules,
    named,
    public_name,
)
from dagorama.values.standard_objects import Reducer, reduced_overloads, standard_reducers

if TYPE_CHECKING:
    from dagorama.values.out_of_band import OutOfBandWriter

PROTOCOL = 5


def dumps(
    value: object,
    reducers: Mapping[type, Reducer] | None = None,
    left_out: OutOfBandWriter | None = None,
    *,
    with_functions: bool = False,
) -> bytes:
    """Return a pickle of `value`, with `reducers` before cloudpickle's own and without the parts in `left_out`.

    With `with_functions` a reader reads local functions by value even if it has the same ones. Raises the errors of
    pickling.
    """
    import cloudpickle  # type: ignore[import-untyped]  # it ships no types

    reduce_class = cloudpickle.cloudpickle._dynamic_class_reduce

    def reducer_override(self: Any, found: Any) -> Any:
        if isinstance(found, InstanceType):
            return reduced_type(found)
        if isinstance(found, (type, FunctionType)):
            if found.__module__ in local_modules or (isinstance(found, type) and "<locals>" in found.__qualname__):
                if (by_name := _by_name(found)) is not None:
                    return by_name
                if isinstance(found, type):
                    is_new = with_functions and hasattr(found, "entrypoint")
                    return (_reduced_definition if is_new else _reduced_class)(found, reduce_class(found))
                if overloads := overloads_of(found):
                    return reduced_overloads(found, overloads)
                reduced = self._dynamic_function_reduce(found)
                _add_names_of_class_bodies(found, reduced[2][1]["__globals__"])
                return reduced if with_functions else _reduced_function(found, reduced)
        elif (name := _name_of_global(found, with_functions)) is not None:
            return _global, (type(found).__module__ if type(found) is not object else MAIN, name, type(found))
        return cloudpickle.Pickler.reducer_override(self, found)

    namespace: dict[str, Any] = {"reducer_override": reducer_override}
    if left_out is not None:
        namespace["persistent_id"] = staticmethod(left_out.persistent_id)
    file = BytesIO()
    callback = None if left_out is None else left_out.buffer_callback
    pickler = type("ByValue", (cloudpickle.Pickler,), namespace)(file, PROTOCOL, buffer_callback=callback)
    _put_first(pickler, reducers or {})
    pickler.dump(value)
    return file.getvalue()


def _put_first(pickler: Any, reducers: Mapping[type, Reducer]) -> None:
    import pickle

    theirs = cast(dict[type, Any], pickler.dispatch_table)

    def code(found: CodeType) -> tuple[Any, ...]:
        make, arguments = theirs[CodeType](found)
        return _code, (make, arguments, found.co_filename)

    ours = {CodeType: code, **standard_reducers(theirs, _by_name), **reducers}
    # An assignment would set the attribute of the Python class, and would not reach the C pickler.
    vars(pickle.Pickler)["dispatch_table"].__set__(pickler, ChainMap(ours, theirs))


@stored.named("code")
def _code(make: Callable[..., CodeType], arguments: tuple[Any, ...], filename: str) -> CodeType:
    """Return a code object with its file name."""
    return make(*arguments).replace(co_filename=filename)


# --- objects that both sides can name ----------------------------------------------------------------------


def _by_name(found: type | FunctionType) -> tuple[Any, ...] | None:
    """Reduce a class or function of a program run by `python -m` to the name under which others can import it."""
    public = public_name(found.__module__)
    if public == found.__module__ or not is_found(found):
        return None
    return _imported, (public, found.__qualname__)


@stored.named("imported")
def _imported(module: str, path: str) -> Any:
    """Return a class or function from the module under which others can import it."""
    from importlib import import_module

    return named(import_module(module), path)


def _name_of_global(found: Any, is_definition: bool) -> str | None:
    """Return the name of a sentinel, or None for other objects.

    A sentinel is an object that pickles as its name, a plain object(), or an object without state of a class of the
    script. The last two are pickled with the definitions that name them.
    """
    cls = type(found)
    if cls.__module__ in local_modules and isinstance(reduced := found.__reduce_ex__(PROTOCOL), str):
        return reduced
    if is_definition or (cls is not object and (cls.__module__ not in local_modules or not _is_stateless(found, cls))):
        return None
    module = sys.modules.get(MAIN if cls is object else cls.__module__)
    for name, value in list(vars(module or object).items()):
        if value is found:
            return name
    return None


def _is_stateless(found: Any, cls: type) -> bool:
    is_plain = not any(name in vars(cls) for name in ("__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs__"))
    return is_plain and getattr(found, "__dict__", None) == {} and cls.__bases__ == (object,)


@stored.named("sentinel")
def _global(module: str, name: str, cls: type) -> Any:
    """Return the sentinel of this process, which is made if there is none."""
    place = vars(sys.modules.setdefault(module, ModuleType(module)))
    if type(place.get(name)) is not cls:
        place[name] = object.__new__(cls)
    return place[name]


# --- classes and functions ---------------------------------------------------------------------------------

_loaded: WeakValueDictionary[tuple[str, str], Any] = WeakValueDictionary()  # by name and hash
_unfilled: WeakSet[Any] = WeakSet()


def _reduced_definition(cls: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Reduce a definition to a new class for each pickle, which cloudpickle does not track.

    The class may be the same object as before and still refer to other functions and values.
    """
    make, arguments, state, _, _, fill = _made_whole(cls, reduced)
    constructor, name, bases, namespace, _, extra = arguments
    return make, (constructor, name, bases, namespace, None, extra), state, None, None, fill


def _made_whole(cls: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Set the qualified name and the slots when the class is made.

    cloudpickle omits the name, and sets the slots after the class is made, which is too late.
    """
    make, arguments, (attributes, more), _, _, fill = reduced
    attributes = {name: found for name, found in attributes.items() if type(found) is not MemberDescriptorType}
    if not issubclass(cls, Enum):
        constructor, name, bases, namespace, *rest = arguments
        early = {"__qualname__": cls.__qualname__}
        if "__slots__" in attributes and not issubclass(cls, tuple):
            early["__slots__"] = attributes.pop("__slots__")
        arguments = (constructor, name, bases, {**namespace, **early}, *rest)
    return make, arguments, (attributes, more), None, None, fill


def _reduced_class(cls: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    make, arguments, state, _, _, fill = _made_whole(cls, reduced)
    if not is_found(cls):  # another class has its name, for example one that a decorator has made
        return make, arguments, state, None, None, fill
    return _class, (_path(cls), object_hash(cls), make, arguments), state, None, None, _fill


def _reduced_function(function: FunctionType, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    if not is_found(function):
        return reduced
    make, arguments, state = reduced[:3]
    return _function, (_path(function), object_hash(function), make, arguments), state, None, None, _fill


def _add_names_of_class_bodies(function: FunctionType, names: dict[str, Any]) -> None:
    """Add the globals that class bodies inside the function use, which cloudpickle omits."""
    for code in with_nested(function.__code__):
        if not code.co_flags & CO_OPTIMIZED:
            names.update({name: function.__globals__[name] for name in code.co_names if name in function.__globals__})


def _path(found: type | FunctionType) -> str:
    module = MAIN if found.__module__ == SPAWNED_MAIN else found.__module__
    return f"{module}:{found.__qualname__}"


def _own(name: str) -> Any:
    """Return the class or function of this process with a name, or None."""
    module, _, path = name.partition(":")
    return None if "<locals>" in path else named(sys.modules.get(module), path)


@stored.named("local_class")
def _class(name: str, code_hash: str, make: Callable[..., type], arguments: tuple[Any, ...]) -> type:
    """Return the class of this process if it has the same code, or else the class in the pickle."""
    own = _own(name)
    if isinstance(own, type):
        if object_hash(own) == code_hash:
            return own
        if not is_filled(own.__module__):
            raise ValueNotReadable(
                f"the class {name} has other code here than where the value was made: run the same version of the "
                "script, or put the class into a module"
            )
    cls: type = _made(name, code_hash, make, arguments)
    return cls


@stored.named("local_function")
def _function(name: str, code_hash: str, make: Callable[..., FunctionType], arguments: tuple[Any, ...]) -> FunctionType:
    """Return the function of this process if it has the same code, or else the function in the pickle."""
    own = _own(name)
    if isinstance(own, FunctionType) and object_hash(own) == code_hash:
        return own
    function: FunctionType = _made(name, code_hash, make, arguments)
    return function


def _made(name: str, code_hash: str, make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Return the class or function that was read before with this name and hash, or make one for `_fill`."""
    found = _loaded.get((name, code_hash))
    if found is None:
        found = make(*arguments)
        if known_hash(found) != code_hash:
            note_hash(found, code_hash)
            _unfilled.add(found)
        if "<locals>" not in name:
            _loaded[name, code_hash] = found
    return found


@stored.named("fill_local")
def _fill(found: type | FunctionType, state: Any) -> None:
    """Set the state of a class or function that was made from this pickle."""
    if found in _unfilled:
        from cloudpickle import cloudpickle

        _unfilled.discard(found)
        set_state = cloudpickle._class_setstate if isinstance(found, type) else cloudpickle._function_setstate
        set_state(found, state)
        fill_in(found)
