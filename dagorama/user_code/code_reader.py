"""Collect what the hash of a function or class covers: code, constants and everything that they name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import cached_property
from types import CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any, NamedTuple
from weakref import ref

from dagorama.code_signature import calculate_function_hash, functions_in
from dagorama.user_code.assignments import assignments, source_of
from dagorama.user_code.function_parts import defaults_of, functions_of, overloads_of, parts_of
from dagorama.user_code.names import plain_function
from dagorama.user_code.plain_values import plain_text, value_text

# Members that Python, abc, dataclasses and enum add to a class, or that do not change what the class does.
_NOT_CODE = frozenset({
    "__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__abstractmethods__",
    "_abc_impl", "__parameters__", "__orig_bases__", "__static_attributes__", "__firstlineno__", "__annotate__",
    "__annotate_func__", "__annotations_cache__", "__match_args__", "__dataclass_fields__", "__dataclass_params__",
    "__hash__", "__type_params__", "__classcell__",
})  # fmt: skip

_FIELDS = "__dataclass_fields__"
# Descriptors that Python makes for the names in __slots__.
_SLOTS = (MemberDescriptorType, GetSetDescriptorType)


class Watched(NamedTuple):
    """An object that the hashes depend on, and the name under which it was found."""

    namespace: Mapping[str, Any] | ref[type]  #: the names of a module, or a class
    name: str
    is_still: Callable[[object], bool]

    def is_current(self) -> bool:
        """Return whether the name still refers to the same object, or to an equal plain value."""
        namespace = self.namespace
        if isinstance(namespace, ref):
            namespace = vars(namespace() or object)
        return self.is_still(namespace.get(self.name))


class CodeReader:
    """Follows names within the module of the code, visits each object once, and collects the lines to hash."""

    def __init__(self, by_value: bool, *own: type | FunctionType) -> None:
        """Take the objects whose modules are followed from the code of other modules that holds functions of them."""
        self._own = {each.__module__ for each in own}
        self.by_value = by_value  #: also hash values without source code, such as captured variables
        self.lines: list[str] = []
        self.watched: list[Watched] = []
        self._seen: set[int] = set()
        self._held: list[object] = []  # keeps the objects alive, so that their `id()` in `_seen` stays unique

    def pass_over(self, classes: Iterable[type]) -> None:
        """Do not follow these classes: their members are added one by one."""
        for cls in classes:
            self._enter(cls)

    def members(self, cls: type) -> None:
        """Add the undecorated members of a class; decorated members are only watched."""
        for name, value in sorted(vars(cls).items()):
            self._watch(ref(cls), name, value)
            if name in _NOT_CODE or plain_function(value) is not None or _is_generated(cls, value):
                continue
            self._member(cls, name, value)
        self._makers(cls)

    def cls(self, cls: type) -> None:
        """Add a class, its bases in the same module, its fields and everything that its methods name."""
        if not self._enter(cls):
            return
        self.lines.append(f"class {cls.__qualname__}({', '.join(base.__qualname__ for base in cls.__bases__)})")
        for base in (*cls.__bases__, type(cls)):
            if base.__module__ == cls.__module__:
                self.cls(base)
        if dataclasses.is_dataclass(cls):
            self.lines += [f"field {field.name}={plain_text(field.default)}" for field in dataclasses.fields(cls)]
        if issubclass(cls, Enum):
            self.lines += [f"member {name}={plain_text(member.value)}" for name, member in cls.__members__.items()]
        for name, value in sorted(vars(cls).items()):
            if name in _NOT_CODE or _is_generated(cls, value) or (issubclass(cls, Enum) and not code_in(value)):
                continue
            self._member(cls, name, value)
        self._makers(cls)

    def value(self, name: str, value: Any, module: object) -> bool:
        """Add a function or class of this module under its name. Return False for any other object."""
        functions = code_in(value)
        if functions and name and functions[0].__module__ != module:
            self._replaced(name, functions)
            return True  # it belongs to another module
        if functions:
            if self._enter(value):
                self.lines += [f"{name}={calculate_function_hash(function)}" for function in functions]
                for function in functions:
                    self.names_in(function)
                for kind, function in sorted(overloads_of(value).items(), key=lambda item: item[0].__qualname__):
                    self.value(f"{name} of {kind.__qualname__}", function, module)
        elif isinstance(value, type):
            self.cls(value)
        else:
            return False
        return True

    def _replaced(self, name: str, functions: list[FunctionType]) -> None:
        """Add functions of own modules that a decorator of another module has replaced by one of its own."""
        for cell in (cell for function in functions for cell in function.__closure__ or ()):
            with suppress(ValueError):
                held = cell.cell_contents
                if code_in(held) and _module_of(held) in self._own:
                    self.value(name, held, _module_of(held))

    def names_in(self, function: Callable[..., Any]) -> None:
        """Follow the names that a function uses in its own module, and the variables of its closure."""
        for plain in functions_in(function):
            self._enter(plain)
            namespace, module = plain.__globals__, plain.__globals__.get("__name__")
            for name in sorted(names_in_code(plain.__code__) & namespace.keys()):
                self._global(namespace, name, module)
            for name, cell in zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True):
                with suppress(ValueError):  # the variable has no value yet
                    self._inner(name, cell.cell_contents, module)
            for name, value in defaults_of(plain) if self.by_value else ():
                self._inner(name, value, module)

    def declared(self, decorated: Any) -> None:
        """Add the options of a decorated function, which its children get from a worker, and the types of its JSON."""
        self.lines.append(_declared(decorated.options))
        if decorated.codec == "json":
            self.lines += [f"{name}: {hint!r}" for name, hint in sorted(decorated.hints.items())]

    def _member(self, cls: type, name: str, value: Any) -> None:
        parts = parts_of(value)
        if isinstance(value, _SLOTS) or (self.value(name, value, cls.__module__) and not parts):
            return
        text = assignments(cls.__module__, cls.__qualname__).get(name, "")
        if not text and self.by_value and not name.startswith("__"):
            has_source = "<locals>" not in cls.__qualname__ and bool(source_of(cls.__module__))
            text = plain_text(value) if has_source else self._text(parts or value, cls.__module__)
        if text:
            self.lines.append(f"{name}={text}")

    def _makers(self, cls: type) -> None:
        """Add the functions that make the default values of a dataclass's own fields; they are no members."""
        inherited = {id(field) for base in cls.__bases__ for field in getattr(base, _FIELDS, {}).values()}
        for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
            make = field.default_factory
            if make is not dataclasses.MISSING and id(field) not in inherited:
                self.lines.append(f"{field.name} by {getattr(make, '__qualname__', '')}")
                self._inner(field.name, make, cls.__module__)

    def _global(self, namespace: Mapping[str, Any], name: str, module: object) -> None:
        value = namespace[name]
        parts = parts_of(value)
        if not parts and _is_code(value) and getattr(value, "__module__", None) != module:
            self._replaced(name, code_in(value))
            return
        self._watch(namespace, name, value)
        if not self.value(name, value, module) or parts:
            has_source = bool(source_of(module))
            text = assignments(module, "").get(name, "") if has_source else self._text(parts or value, module)
            if text:
                self.lines.append(f"{name}={text}")

    def _inner(self, name: str, value: Any, module: object) -> None:
        """Add an object that code holds without looking it up: a captured variable, a default value."""
        for part in parts_of(value):
            self._inner(name, part, module)
        if _is_code(value):
            # A decorator of another module may hold the function that it has replaced.
            if (found := _module_of(value)) == module or found in self._own:
                self.value(name, value, found)
        elif self.by_value and (text := self._text(value, module)):
            self.lines.append(f"{name}={text}")

    def _text(self, value: object, module: object) -> str:
        """Return the text of a value, and add the classes of this module in it."""

        def follow(found: type) -> None:
            if found.__module__ == module:
                self.cls(found)

        return value_text(value, follow)

    def _enter(self, value: object) -> bool:
        """Return whether the object was not visited before, and remember it."""
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        self._held.append(value)
        return True

    def _watch(self, namespace: Mapping[str, Any] | ref[type], name: str, value: Any) -> None:
        self.watched.append(Watched(namespace, name, _same_as(value)))


def _same_as(value: Any) -> Callable[[object], bool]:
    """Return a check for the same value that keeps no class and no large object alive."""
    if isinstance(value, (type, FunctionType)):
        weak = ref(value)
        return lambda found: weak() is found
    text = plain_text(value)
    if text:
        return lambda found: plain_text(found) == text
    number = id(value)
    return lambda found: id(found) == number


def code_in(value: Any) -> list[FunctionType]:
    """Return the functions in a function, method, property or wrapper; an empty list for any other object."""
    if isinstance(value, type):
        return []
    if isinstance(value, property):
        return [found for part in functions_of(value) for found in functions_in(part)]
    try:
        if overloads := overloads_of(value):
            return list(functions_in(overloads[object]))  # the code around it is the one of functools
        return list(functions_in(value.func if isinstance(value, cached_property) else value))
    except Exception:  # a proxy without a target may raise anything
        return []


def _declared(value: Any) -> str:
    """Return a text for an option of a decorated function, from which other processes make the same."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [f"{field.name}={_declared(getattr(value, field.name))}" for field in dataclasses.fields(value)]
        return f"{type(value).__qualname__}({', '.join(parts)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_declared, value))})"
    if isinstance(value, type):
        return f"{value.__module__}:{value.__qualname__}"
    functions = code_in(value)
    return ", ".join(map(calculate_function_hash, functions)) if functions else value_text(value)


def _is_code(value: object) -> bool:
    return isinstance(value, type) or bool(code_in(value))


def _module_of(value: Any) -> object:
    return (value if isinstance(value, type) else code_in(value)[0]).__module__


def _is_generated(cls: type, value: Any) -> bool:
    """Return whether dataclasses has generated the method, so that it is determined by the fields."""
    if not dataclasses.is_dataclass(cls) or not isinstance(value, FunctionType):
        return False
    return value.__module__ == "dataclasses" or any(f.__code__.co_filename == "<string>" for f in functions_in(value))


def names_in_code(code: CodeType) -> set[str]:
    """Return the names that the code, and code nested in it, may look up in the module."""
    return {name for part in with_nested(code) for name in part.co_names}


def with_nested(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function, and the code of all functions and class bodies in it."""
    stack = [code]
    while stack:
        code = stack.pop()
        yield code
        stack += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
