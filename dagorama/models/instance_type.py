"""The types of instances: one for each class of definitions, which behaves as that class.

The rule: `type(self)` in a node is such a type. It has the attributes, calls and comparisons of the definition's class,
except for `is`; special methods of the class, which Python looks up on the type, act on the instance.
"""

from __future__ import annotations

import copyreg
import weakref
from collections.abc import Callable, Iterable
from inspect import Signature, signature, unwrap
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from dagorama.models import stored

#: Methods that an instance implements itself, even if the class of its definition has them.
_NOT_FORWARDED = frozenset({
    "__new__", "__init__", "__del__", "__init_subclass__", "__class_getitem__", "__subclasshook__", "__set_name__",
    "__getattr__", "__getattribute__", "__setattr__", "__delattr__", "__dir__",
    "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__",
    "__copy__", "__deepcopy__", "__replace__", "__post_init__", "__doc__", "__annotate_func__",
})  # fmt: skip
#: Two instances are different runs, even if their definitions have equal fields. Methods written by hand count.
_NOT_IF_GENERATED = frozenset({"__eq__", "__hash__", "__repr__"})


#: Attributes that each type has itself, so that __getattr__ is not called for them.
_OWN = ("__annotations__", "__base__", "__bases__", "__dict__", "__mro__")


def _of_plain(name: str) -> Any:
    return property(lambda cls: getattr(plain(cls), name))


class InstanceType(type):
    """The metaclass of these types: missing attributes are looked up on the class of the definition."""

    # Type checkers do not allow definitions of these.
    locals().update({name: _of_plain(name) for name in _OWN})

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return plain(cls)(*args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        return getattr(plain(cls), name)

    def __setattr__(cls, name: str, value: object) -> None:
        setattr(plain(cls), name, value)

    def __delattr__(cls, name: str) -> None:
        delattr(plain(cls), name)

    def __dir__(cls) -> Iterable[str]:
        return dir(plain(cls))

    def __eq__(cls, other: object) -> bool:
        return plain(cls) == (plain(other) if isinstance(other, type) else other)

    def __hash__(cls) -> int:
        return hash(plain(cls))

    def __repr__(cls) -> str:
        return repr(plain(cls))

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, plain(cls))

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(plain(subclass), plain(cls))

    def __subclasses__(cls) -> list[Any]:
        return plain(cls).__subclasses__()


def plain(cls: type) -> type:
    """Return the definition's class for the type of an instance, and any other class itself."""
    if type(cls) is not InstanceType:
        return cls
    of: weakref.ref[type] = type.__getattribute__(cls, "_dagorama_class")
    found = of()
    if found is None:
        raise ReferenceError("the class of the definition no longer exists")
    return found


def make_type(base: type, cls: type, on_gone: Callable[[], object]) -> type:
    """Make the type of instances of `cls`, a subclass of `base` that does not keep `cls` alive."""
    names: dict[str, Any] = {
        "__slots__": (), "__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__,
        "_dagorama_class": weakref.ref(cls, lambda _: on_gone()),
    }  # fmt: skip
    for name, found in _special_methods(cls):
        names[name] = None if found is None else _forwarder(name)
    return InstanceType(cls.__name__, (base,), names)


def _special_methods(cls: type) -> Iterable[tuple[str, Any]]:
    """Yield the special methods of the user's classes by name.

    The method is None if a class disables it, as a class with `__eq__` does with `__hash__`.
    """
    seen: set[str] = set()
    for base in cls.__mro__:
        if base.__module__ in ("builtins", "abc", "typing", "dagorama.definition"):
            continue
        for name, found in base.__dict__.items():
            if name in seen or not (name.startswith("__") and name.endswith("__")) or name in _NOT_FORWARDED:
                continue
            seen.add(name)
            if (found is None or callable(found)) and not _is_generated(name, base):
                yield name, found


def _is_generated(name: str, base: type) -> bool:
    """Return whether a decorator such as dataclasses.dataclass has generated the method: its code is in no file."""
    if name not in _NOT_IF_GENERATED:
        return False
    found: Any = base.__dict__.get("__eq__" if name == "__hash__" else name)
    code = getattr(unwrap(found), "__code__", None)
    is_in_no_file = code is not None and code.co_filename.startswith("<")
    return is_in_no_file and not base.__dict__.keys().isdisjoint(("__dataclass_fields__", "__attrs_attrs__"))


def _forwarder(name: str) -> Callable[..., Any]:
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.__getattr__(name)(*args, **kwargs)

    forward.__name__ = name
    return forward


def reduced_type(cls: InstanceType) -> tuple[Callable[..., Any], tuple[object]]:
    """Reduce a type for pickling: to the class of the definition."""
    return _same, (plain(cls),)


@stored.named("instance_type")
def _same(cls: type) -> type:
    """Return the class in the pickle of a type."""
    return cls


copyreg.pickle(InstanceType, reduced_type)


# --- attributes of definitions ---------------------------------------------------------------------


class ConstructorSignature:
    """The signature of a definition's class is the one of its constructor, although `__new__` takes any arguments."""

    def __get__(self, definition: object, cls: type) -> Signature | None:
        if definition is not None:
            return None
        if cls.__init__ is object.__init__:  # type: ignore[misc]  # it is only compared
            return Signature()
        found = signature(cls.__init__)  # type: ignore[misc]  # as a function
        return found.replace(parameters=list(found.parameters.values())[1:])


def on_class(cls: type, name: str) -> Any:
    """Return what a class or its bases define under a name, unbound; None if they do not."""
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None


def is_bindable(found: Any) -> bool:
    """Return whether a definition's descriptor can be bound to an instance."""
    # The descriptor of a slot accepts only objects with the layout of the definition.
    return hasattr(type(found), "__get__") and not isinstance(found, (MemberDescriptorType, GetSetDescriptorType))


def is_data_descriptor(found: Any) -> bool:
    """Return whether a descriptor also stores or deletes."""
    return hasattr(type(found), "__set__") or hasattr(type(found), "__delete__")
