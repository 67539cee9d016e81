"""Hash the code of a definition: one hash for each decorated method, and one text with all of them.

The hash of a method covers the method; the undecorated members of its class, of the bases that are definitions and of
other bases in their modules; and the functions, classes and constants that these name in their own modules. Imports
from other modules are not covered. Of a constant, the text of its assignments is hashed, so that a computed value may
differ between machines. Code without a file, as in a notebook, has no such text; then the values are hashed, and the
options of the decorator too.

The rule: two processes that load the same files compute the same hashes, on every supported version of Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from types import FunctionType
from typing import NamedTuple
from weakref import WeakKeyDictionary, ref

from dagorama.code_signature import DIGITS
from dagorama.user_code.assignments import source_of
from dagorama.user_code.code_reader import CodeReader, Watched, code_in, names_in_code
from dagorama.user_code.modules import is_local
from dagorama.user_code.names import method_key, plain_function


class ClassCode(NamedTuple):
    """The code of a definition's class."""

    hashes: Mapping[str, str]  #: of each decorated method, by its `method_key`
    text: str  #: all of them, as Function.class_code has them


class _Known(NamedTuple):
    code: ClassCode
    watched: list[Watched]
    names: list[tuple[ref[FunctionType], str]]  #: the methods and their names, which are hashed too

    def is_current(self) -> bool:
        return all(each.is_current() for each in self.watched) and all(
            function is not None and function.__name__ == name for function, name in ((f(), n) for f, n in self.names)
        )


_known: WeakKeyDictionary[type, _Known] = WeakKeyDictionary()


def code_of(cls: type) -> ClassCode:
    """Return the code of a definition's class, which is computed once."""
    known = _known.get(cls)
    if known is None:
        known = _known[cls] = _compute(cls)
    return known.code


def renew(cls: type) -> ClassCode:
    """Return the current code of a definition's class; compute it again if something that it names has changed."""
    known = _known.get(cls)
    if known is not None and known.is_current():
        return known.code
    found = _known[cls] = _compute(cls)
    if known is not None:
        for wrapper in _wrappers(cls).values():
            wrapper.__dict__["_dagorama_decorated"].forget(cls)
    return found.code


def take_over(cls: type, code: ClassCode) -> None:
    """Store the code of a class that was received by value, as the process with the source computed it."""
    _known[cls] = _Known(code, [], [])


def read_text(text: str) -> dict[str, str]:
    """Return the hashes in the text of a ClassCode, by method."""
    return {key: hash for key, _, hash in (pair.rpartition("=") for pair in text.split(","))} if text else {}


def object_hash(found: type | FunctionType) -> str:
    """Return the hash of a class or function, with its bases in the same module and the names that it uses there."""
    known = _hashes.get(found)
    if known is None or not all(each.is_current() for each in known.watched):
        reader = CodeReader(True, found)
        reader.value("", found, found.__module__)
        known = _hashes[found] = _Hash(_digest(reader.lines), reader.watched)
    return known.hash


def note_hash(found: type | FunctionType, hash: str) -> None:
    """Store the hash of a class or function that was received by value, as the process with the source computed it."""
    _hashes[found] = _Hash(hash, [])


def known_hash(found: type | FunctionType) -> str | None:
    """Return the hash of a class or function if it was computed or stored before."""
    known = _hashes.get(found)
    return None if known is None else known.hash


class _Hash(NamedTuple):
    hash: str
    watched: list[Watched]


_hashes: WeakKeyDictionary[type | FunctionType, _Hash] = WeakKeyDictionary()


def captured_in(cls: type) -> Iterator[tuple[str, str, object]]:
    """Yield method, name and value of each object that methods name in their module or capture.

    These are the methods of a class and of its bases that other processes cannot import.
    """
    for base in filter(is_local, cls.__mro__):
        for member in vars(base).values():
            for function in code_in(member):
                namespace = function.__globals__
                for name in sorted(names_in_code(function.__code__) & namespace.keys()):
                    yield function.__qualname__, name, namespace[name]
                for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                    with suppress(ValueError):  # the variable has no value
                        yield function.__qualname__, name, cell.cell_contents


def _compute(cls: type) -> _Known:
    by_value = "<locals>" in cls.__qualname__ or not source_of(cls.__module__)
    own_classes = _definitions(cls)
    shared = CodeReader(by_value, *own_classes)
    shared.pass_over(own_classes)
    for base in own_classes:
        shared.members(base)
    hashes, watched, names = {}, shared.watched, []
    for key, wrapper in sorted(_wrappers(cls).items()):
        own, decorated = CodeReader(by_value, *own_classes), wrapper.__dict__["_dagorama_decorated"]
        own.pass_over(own_classes)
        own.names_in(decorated.function)
        if by_value:
            own.declared(decorated)
        watched += own.watched
        names.append((ref(decorated.function), decorated.function.__name__))
        hashes[key] = _method_hash(decorated.hash, [*shared.lines, *own.lines])
    text = ",".join(f"{key}={hash}" for key, hash in hashes.items())
    # Workers import other classes themselves, so objects that were replaced in this process are not replaced there.
    return _Known(ClassCode(hashes, text), watched if is_local(cls) else [], names)


def _definitions(cls: type) -> list[type]:
    """Return the class, its bases that are definitions, and other bases in their modules, without DAGDefinition."""
    modules = {base.__module__ for base in cls.__mro__ if hasattr(base, "entrypoint")} - {"dagorama.definition"}
    return [base for base in cls.__mro__ if base.__module__ in modules]


def _wrappers(cls: type) -> dict[str, FunctionType]:
    """Return the decorated methods of a class and its bases, by their keys."""
    found: dict[str, FunctionType] = {}
    for base in cls.__mro__:
        for wrapper in vars(base).values():
            if (function := plain_function(wrapper)) is not None:
                found.setdefault(method_key(cls, function), wrapper)
    return found


def _method_hash(hash: str, lines: list[str]) -> str:
    if not lines:
        return hash
    mark = hash[: hash.rindex("-") + 1] if "-" in hash else ""
    return mark + _digest([hash, *lines])


def _digest(lines: Iterable[str]) -> str:
    return sha256("\n".join(lines).encode()).hexdigest()[:DIGITS]
