"""The code of a definition as a whole: one hash for each of its decorated methods, and all of them as one text.

The hash of a method covers the method itself; the undecorated members of its class and of its bases that are
definitions; and the functions, classes and constants that these name in their own modules. Imports from other modules
do not count. A constant counts by the text of its assignments, so that a computed value may differ between machines.
Code without a file, as in a notebook, has no such text; its values count themselves.

The rule: two processes that load the same files work out the same hashes, on every supported Python.
"""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import cached_property, lru_cache
from hashlib import sha256
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary, ref

from dagorama.code_signature import DIGITS, calculate_function_hash, canonical, functions_in, scalar, source_lines
from dagorama.user_code.modules import is_local
from dagorama.user_code.names import method_key, original

#: items up to which a value is compared by its text; a larger one is compared by its identity, or hashed as a pickle
PLAIN_ITEMS = 10_000

# What Python, abc, dataclasses and enum add to a class, and what says nothing of what it does.
_NOT_CODE = frozenset({
    "__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__abstractmethods__",
    "_abc_impl", "__parameters__", "__orig_bases__", "__static_attributes__", "__firstlineno__", "__annotate__",
    "__annotate_func__", "__annotations_cache__", "__match_args__", "__dataclass_fields__", "__dataclass_params__",
    "__hash__", "__type_params__", "__classcell__",
})  # fmt: skip


class ClassCode(NamedTuple):
    hashes: Mapping[str, str]  #: of each decorated method, by its `method_key`
    text: str  #: all of them, as Function.class_code has them


class _Watched(NamedTuple):
    """Something that the hashes depend on, and where it was found."""

    place: Mapping[str, Any] | ref[type]  #: names of a module, or a class
    name: str
    is_still: Callable[[object], bool]

    def is_current(self) -> bool:
        place = self.place
        if isinstance(place, ref):
            place = vars(place() or object)
        return self.is_still(place.get(self.name))


class _Known(NamedTuple):
    code: ClassCode
    watched: list[_Watched]
    names: list[tuple[ref[FunctionType], str]]  #: of the methods, which count

    def is_current(self) -> bool:
        return all(each.is_current() for each in self.watched) and all(
            function is not None and function.__name__ == name for function, name in ((f(), n) for f, n in self.names)
        )


_known: WeakKeyDictionary[type, _Known] = WeakKeyDictionary()


def code_of(cls: type) -> ClassCode:
    """Return the code of a definition's class, worked out once."""
    known = _known.get(cls)
    if known is None:
        known = _known[cls] = _work_out(cls)
    return known.code


def renew(cls: type) -> ClassCode:
    """Return the code of a definition's class as it is now, worked out again if something that it names has changed."""
    known = _known.get(cls)
    if known is not None and known.is_current():
        return known.code
    found = _known[cls] = _work_out(cls)
    if known is not None:
        for wrapper in _wrappers(cls).values():
            wrapper.__dict__["_dagorama_decorated"].forget(cls)
    return found.code


def take_over(cls: type, code: ClassCode) -> None:
    """Note the code of a class that came by value, as the process that has the source worked it out."""
    _known[cls] = _Known(code, [], [])


def read_text(text: str) -> dict[str, str]:
    """Return the hashes in a ClassCode's text, by method."""
    return {key: hash for key, _, hash in (pair.rpartition("=") for pair in text.split(","))} if text else {}


def object_hash(found: type | FunctionType) -> str:
    """Return the hash of any class or function, with its bases in the same module and what they name there."""
    known = _hashes.get(found)
    if known is None or not all(each.is_current() for each in known.watched):
        reader = _Reader(by_value=True)
        reader.value("", found, found.__module__)
        known = _hashes[found] = _Hash(_digest(reader.lines), reader.watched)
    return known.hash


def note_hash(found: type | FunctionType, hash: str) -> None:
    """Note the hash of what came by value, as the process worked it out that has the source."""
    _hashes[found] = _Hash(hash, [])


def known_hash(found: type | FunctionType) -> str | None:
    """Return the hash of a class or function if it was worked out or noted already."""
    known = _hashes.get(found)
    return None if known is None else known.hash


class _Hash(NamedTuple):
    hash: str
    watched: list[_Watched]


_hashes: WeakKeyDictionary[type | FunctionType, _Hash] = WeakKeyDictionary()


def captured_in(cls: type) -> Iterator[tuple[str, str, object]]:
    """Return what the methods of a class name in their module, or hold on to: method, name and value of each."""
    for base in cls.__mro__:
        for member in vars(base).values():
            for function in _code_in(member):
                place = function.__globals__
                for name in sorted(_names(function.__code__) & place.keys()):
                    yield function.__qualname__, name, place[name]
                for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                    with suppress(ValueError):  # it is empty
                        yield function.__qualname__, name, cell.cell_contents


def _work_out(cls: type) -> _Known:
    by_value = "<locals>" in cls.__qualname__ or not _source(cls.__module__)
    shared, own_classes = _Reader(by_value), _definitions(cls)
    shared.pass_over(own_classes)
    for base in own_classes:
        shared.members(base)
    hashes, watched, names = {}, shared.watched, []
    for key, wrapper in sorted(_wrappers(cls).items()):
        own, decorated = _Reader(by_value), wrapper.__dict__["_dagorama_decorated"]
        own.pass_over(own_classes)
        own.names_in(decorated.function)
        watched += own.watched
        names.append((ref(decorated.function), decorated.function.__name__))
        hashes[key] = _method_hash(decorated.hash, [*shared.lines, *own.lines])
    text = ",".join(f"{key}={hash}" for key, hash in hashes.items())
    # Workers import the others themselves: what is replaced in them here is not there.
    return _Known(ClassCode(hashes, text), watched if is_local(cls) else [], names)


def _definitions(cls: type) -> list[type]:
    """Return the class and its bases that are definitions, without DAGDefinition itself."""
    return [base for base in cls.__mro__ if hasattr(base, "entrypoint") and base.__module__ != "dagorama.definition"]


def _wrappers(cls: type) -> dict[str, FunctionType]:
    """The decorated methods of a class and of its bases, by their keys."""
    found: dict[str, FunctionType] = {}
    for base in cls.__mro__:
        for wrapper in vars(base).values():
            if (function := original(wrapper)) is not None:
                found.setdefault(method_key(cls, function), wrapper)
    return found


def _method_hash(hash: str, lines: list[str]) -> str:
    if not lines:
        return hash
    mark = hash[: hash.rindex("-") + 1] if "-" in hash else ""
    return mark + _digest([hash, *lines])


def _digest(lines: Iterable[str]) -> str:
    return sha256("\n".join(lines).encode()).hexdigest()[:DIGITS]


class _Reader:
    """Follows names within the modules in which the code stands, each object once, and notes what counts."""

    def __init__(self, by_value: bool) -> None:
        self.by_value = by_value  #: also hash values without source code, such as those of a closure
        self.lines: list[str] = []
        self.watched: list[_Watched] = []
        self._seen: set[int] = set()
        self._held: list[object] = []  # so that an id in `_seen` stands for one object

    def pass_over(self, classes: Iterable[type]) -> None:
        """Do not follow these classes: their members are noted one by one."""
        for cls in classes:
            self._enter(cls)

    def members(self, cls: type) -> None:
        """Note the undecorated members of a class; decorated ones are only watched."""
        for name, value in sorted(vars(cls).items()):
            self._watch(ref(cls), name, value)
            if name in _NOT_CODE or original(value) is not None or _is_generated(cls, value):
                continue
            self._member(cls, name, value)

    def cls(self, cls: type) -> None:
        """Note a class, its bases in the same module, its fields and everything that its methods name."""
        if not self._enter(cls):
            return
        self.lines.append(f"class {cls.__qualname__}({', '.join(base.__qualname__ for base in cls.__bases__)})")
        for base in cls.__bases__:
            if base.__module__ == cls.__module__:
                self.cls(base)
        if dataclasses.is_dataclass(cls):
            self.lines += [f"field {field.name}={plain_text(field.default)}" for field in dataclasses.fields(cls)]
        if issubclass(cls, Enum):
            self.lines += [f"member {name}={plain_text(member.value)}" for name, member in cls.__members__.items()]
        for name, value in sorted(vars(cls).items()):
            if name in _NOT_CODE or _is_generated(cls, value) or (issubclass(cls, Enum) and not _code_in(value)):
                continue
            self._member(cls, name, value)

    def value(self, name: str, value: Any, module: object) -> bool:
        """Note a function or a class of that module under its name; return False for anything else."""
        functions = _code_in(value)
        if functions and name and functions[0].__module__ != module:
            return True  # it is of another module
        if functions:
            if self._enter(value):
                self.lines += [f"{name}={calculate_function_hash(function)}" for function in functions]
                for function in functions:
                    self.names_in(function)
        elif isinstance(value, type):
            self.cls(value)
        else:
            return False
        return True

    def names_in(self, function: Callable[..., Any]) -> None:
        """Follow the names that a function uses in its own module, and the variables of its closure."""
        for plain in functions_in(function):
            self._enter(plain)
            place, module = plain.__globals__, plain.__globals__.get("__name__")
            for name in sorted(_names(plain.__code__) & place.keys()):
                self._global(place, name, module)
            for name, cell in zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True):
                self._captured(name, cell, module)

    def _member(self, cls: type, name: str, value: Any) -> None:
        if not self.value(name, value, cls.__module__):
            text = _assignments(cls.__module__, cls.__qualname__).get(name, "")
            text = text or (plain_text(value) if self.by_value and not name.startswith("__") else "")
            if text:
                self.lines.append(f"{name}={text}")

    def _global(self, place: Mapping[str, Any], name: str, module: object) -> None:
        value = place[name]
        is_code = isinstance(value, type) or bool(_code_in(value))
        if is_code and getattr(value, "__module__", None) != module:
            return
        self._watch(place, name, value)
        if not self.value(name, value, module):
            has_source = bool(_source(module))
            text = _assignments(module, "").get(name, "") if has_source else _text(value)
            if text:
                self.lines.append(f"{name}={text}")

    def _captured(self, name: str, cell: Any, module: object) -> None:
        try:
            value = cell.cell_contents
        except ValueError:
            return  # it is empty so far
        is_code = isinstance(value, type) or bool(_code_in(value))
        if is_code and getattr(value, "__module__", None) == module:
            self.value(name, value, module)
        elif not is_code and self.by_value and (text := _text(value)):
            self.lines.append(f"{name}={text}")

    def _enter(self, value: object) -> bool:
        """Whether it is met for the first time."""
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        self._held.append(value)
        return True

    def _watch(self, place: Mapping[str, Any] | ref[type], name: str, value: Any) -> None:
        self.watched.append(_Watched(place, name, _same_as(value)))


def _same_as(value: Any) -> Callable[[object], bool]:
    """A check that holds no class alive, nor anything large."""
    if isinstance(value, (type, FunctionType)):
        weak = ref(value)
        return lambda found: weak() is found
    text = plain_text(value)
    if text:
        return lambda found: plain_text(found) == text
    number = id(value)
    return lambda found: id(found) == number


def _text(value: object) -> str:
    """A text for a value that travels with the code: the value itself if it is plain, else a digest of its pickle."""
    if isinstance(value, ModuleType):
        return ""
    plain = plain_text(value)
    if plain:
        return plain
    import cloudpickle  # type: ignore[import-untyped]  # it ships no types

    try:
        return "pickle:" + sha256(cloudpickle.dumps(value)).hexdigest()[:DIGITS]
    except Exception:  # it cannot travel, which is said when it is to
        return ""


def plain_text(value: object) -> str:
    """Return a text for a plain value that is the same in every process; an empty one for anything else."""
    return "".join(_plain_parts(value)) if _is_plain(value) else ""


_SCALARS = (type(None), type(...), bool, int, float, complex, str, bytes)
_CONTAINERS = (tuple, list, set, frozenset)


def _is_plain(value: object) -> bool:
    """Whether it is built of scalars alone, and not too large to be looked through at each call."""
    stack, left = [value], PLAIN_ITEMS
    while stack:
        item = stack.pop()
        left -= 1
        if type(item) in _CONTAINERS:
            stack.extend(cast("Iterable[object]", item))
        elif type(item) is dict:
            stack += [part for pair in item.items() for part in pair]
        elif type(item) not in _SCALARS:
            return False
        if left < len(stack):
            return False
    return True


def _plain_parts(value: Any) -> Iterator[str]:
    if type(value) in (set, frozenset):
        yield f"{type(value).__name__}{{{','.join(sorted(map(plain_text, value)))}}}"
    elif type(value) in (tuple, list):
        yield f"{type(value).__name__}({','.join(map(plain_text, value))})"
    elif type(value) is dict:
        yield f"dict({','.join(f'{plain_text(key)}:{plain_text(part)}' for key, part in value.items())})"
    else:
        yield scalar(value)


def _code_in(value: Any) -> list[FunctionType]:
    """The functions that make up a function, a method, a property or what wraps one."""
    if isinstance(value, type):
        return []
    if isinstance(value, property):
        return [found for part in (value.fget, value.fset, value.fdel) if part for found in functions_in(part)]
    try:
        return list(functions_in(value.func if isinstance(value, cached_property) else value))
    except Exception:  # a proxy that has nothing to stand for yet raises what it likes
        return []


def _is_generated(cls: type, value: Any) -> bool:
    """Whether dataclasses has written the method: what it does follows from the fields."""
    if not dataclasses.is_dataclass(cls) or not isinstance(value, FunctionType):
        return False
    return value.__module__ == "dataclasses" or any(f.__code__.co_filename == "<string>" for f in functions_in(value))


def _names(code: CodeType) -> set[str]:
    """Return the names that the code and what is nested in it may look up in the module."""
    return {name for part in with_nested(code) for name in part.co_names}


def with_nested(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function and that of all functions and class bodies inside of it."""
    stack = [code]
    while stack:
        code = stack.pop()
        yield code
        stack += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


# --- constants, by the text of their assignments -----------------------------------------------------------


def _source(module: object) -> str:
    """The source of a module that was loaded from a file; empty for any other."""
    loaded = sys.modules.get(module) if isinstance(module, str) else None
    filename = getattr(loaded, "__file__", None)
    if not filename or not filename.endswith((".py", ".pyw")):
        return ""
    return "".join(source_lines(filename, vars(loaded)))


def _assignments(module: object, path: str) -> Mapping[str, str]:
    """The canonical text of what is assigned to each name in a module, or in the body of a class of it."""
    source = _source(module)
    return _scopes(source).get(path, {}) if source else {}


@lru_cache(maxsize=64)
def _scopes(source: str) -> Mapping[str, Mapping[str, str]]:
    scopes: dict[str, dict[str, str]] = {}
    try:
        stack: list[tuple[str, list[ast.stmt]]] = [("", ast.parse(source).body)]
    except (SyntaxError, ValueError):
        return scopes  # the file has changed since it was loaded
    while stack:
        path, statements = stack.pop()
        scope = scopes.setdefault(path, {})
        for statement in statements:
            if isinstance(statement, ast.ClassDef):
                stack.append((f"{path}.{statement.name}" if path else statement.name, statement.body))
            for name, text in _bound_by(statement):
                scope[name] = scope.get(name, "") + text
            stack += [(path, block) for block in _blocks(statement)]
    return scopes


def _bound_by(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, (ast.AnnAssign, ast.AugAssign)) and statement.value is not None:
        targets = [statement.target]
    else:
        return
    text = "".join(canonical(statement.value)) if statement.value is not None else ""
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                yield node.id, text


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of an `if`, a `try`, a `with` or a loop, which are of the scope around it."""
    if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    for part in ("body", "orelse", "finalbody"):
        yield getattr(statement, part, [])
    for handler in getattr(statement, "handlers", []):
        yield handler.body
