"""Find the part of a value that cannot be pickled, unpickled or hashed, and name it: "argument 'config'.handlers[2]".

The rule: this module is loaded only after a failure. It looks at the objects that pickle looks at, calls no other code
of the user, never recurses and never raises.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from inspect import signature
from types import CoroutineType, FunctionType, GeneratorType, MethodType
from typing import Any

from dagorama.errors import DagoramaError, NotPicklable, ValueNotReadable

Part = tuple[str, object]

_LEAVES = (type, str, bytes, bytearray, int, float, complex, type(None))
_SHOWN = 40


def parameters(
    function: Callable[..., object] | None, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> list[Part]:
    """Return the arguments of a call by their parameter names; `args` does not include the first parameter, `self`."""
    try:
        assert function is not None
        bound = signature(function).bind(None, *args, **kwargs).arguments.items()
        return [(f"argument {name!r}", value) for name, value in list(bound)[1:]]
    except Exception:
        numbered = [(f"argument {number}", value) for number, value in enumerate(args, 1)]
        return numbered + [(f"argument {name!r}", value) for name, value in kwargs.items()]


def not_picklable(error: Exception, parts: list[Part], pickled: Callable[[object], object]) -> NotPicklable:
    """Return the error to raise if `pickled` has raised `error` for a value that consists of `parts`."""

    def fails(value: object) -> bool:
        return _raises(pickled, value)

    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        where = next((where for where, value in parts if fails(value)), parts[0][0])
        return NotPicklable(f"{where} is nested too deeply to be pickled: pass a flat list or dict of its parts")
    where, part = _first_unpicklable(parts, fails)
    return NotPicklable(f"{where} cannot be pickled: {_describe(part)} ({type(error).__name__}: {error})")


def not_readable(
    error: Exception,
    what: str | Callable[..., object] | None,
    fill: Sequence[object],
    read: Callable[[Sequence[object]], Any],
) -> ValueNotReadable:
    """Return the error to raise if `read(fill)` raised `error`; `what` is a noun, or the function of the arguments."""
    whole = f"the {what}" if isinstance(what, str) else "the arguments"
    if isinstance(error, DagoramaError):
        return ValueNotReadable(f"{whole} cannot be read: {error}")
    if isinstance(error, TypeError) and (place := _unhashable_place(what, fill, read)):
        return ValueNotReadable(place)
    hint = ", its module cannot be imported here" if isinstance(error, ImportError) else ""
    return ValueNotReadable(f"{whole} cannot be unpickled{hint} ({type(error).__name__}: {error})")


def _unhashable_place(
    what: str | Callable[..., object] | None, fill: Sequence[object], read: Callable[[Sequence[object]], Any]
) -> str | None:
    """Read the value again with hashable objects for unhashable ones; return the place of one that is hashed."""
    holes = [value if is_hashable(value) else Placeholder(value) for value in fill]
    try:
        value = read(holes)
        parts = [(f"the {what}", value)] if isinstance(what, str) else parameters(what, *value[:2])
    except Exception:
        return None
    return find_unhashable(parts)


class Placeholder:
    """A hashable object in place of an unhashable value whose position is searched."""

    def __init__(self, value: object) -> None:
        self.value = value


def find_unhashable(parts: list[Part]) -> str | None:
    """Return a sentence about the first hole that is a member of a set or a key of a dict; None if there is none."""
    for where, value in _walk(parts):
        if isinstance(value, (set, frozenset, dict)):
            role = "a key of a dict" if isinstance(value, dict) else "a member of a set"
            inside = _walk([("", member) for member in value])
            if hole := next((inner for _, inner in inside if isinstance(inner, Placeholder)), None):
                kind = type(hole.value).__name__
                return f"{where}: a promise is {role} there, and its value, an unhashable {kind}, cannot be one"
    return None


def is_hashable(value: object) -> bool:
    return not _raises(hash, value)


def _raises(function: Callable[[Any], object], value: object) -> bool:
    try:
        function(value)
    except Exception:
        return True
    return False


def _first_unpicklable(parts: list[Part], fails: Callable[[object], bool]) -> Part:
    """Return the first part that fails although nothing inside it fails, except parts of a cycle."""
    whole: Part = ("a part that cannot be singled out", None)
    seen: dict[int, object] = {}  # keeps visited objects alive, so that each `id()` stands for one object
    explained: set[int] = set()
    stack: list[tuple[Part, Iterator[Part]]] = [(whole, iter(parts))]
    while stack:
        owner, inner = stack[-1]
        failing = next((part for part in inner if fails(part[1])), None)
        if failing is None:
            if id(owner[1]) not in explained:
                return owner
            stack.pop()
            continue
        explained.add(id(owner[1]))
        if id(failing[1]) not in seen:
            seen[id(failing[1])] = failing[1]
            stack.append((failing, _placed(failing)))
    return whole


def _walk(parts: list[Part]) -> Iterator[Part]:
    """Yield all parts inside of `parts`, each object once."""
    stack = parts[::-1]
    seen: dict[int, object] = {}
    while stack:
        part = stack.pop()
        if id(part[1]) in seen:
            continue
        seen[id(part[1])] = part[1]
        yield part
        stack.extend(list(_placed(part))[::-1])


def _describe(value: object) -> str:
    """Return what the value is, and what to pass instead."""
    for kinds, what, instead in _ADVICE:
        if isinstance(value, kinds):
            return f"{what} stays in its process; {instead}"
    kind = type(value)
    if kind.__module__ in ("_thread", "threading", "multiprocessing.synchronize"):
        return f"a {kind.__name__.lower()} stays in its process; make it in the method that uses it"
    return (
        f"it is of type {kind.__module__}.{kind.__qualname__}; pass the plain data that it is made from, "
        "or make it in the method that uses it"
    )


def _placed(part: Part) -> Iterator[Part]:
    where, value = part
    try:
        for step, child in _children(value):
            yield where + step, child
    except Exception:
        return


def _children(value: object) -> Iterator[Part]:
    if isinstance(value, (*_LEAVES, Placeholder)):
        return
    if isinstance(value, dict):
        yield from ((f"[{_short(key)}]", child) for key, child in list(value.items()))
        yield from ((f", its key {_short(key)}", key) for key in list(value))
    elif isinstance(value, tuple) and (names := getattr(value, "_fields", None)):
        yield from ((f".{name}", child) for name, child in zip(names, value, strict=True))
    elif isinstance(value, (list, tuple, deque)):
        yield from ((f"[{index}]", child) for index, child in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((f", its member {_short(child)}", child) for child in value)
    else:
        yield from _inside(value)


def _inside(value: object) -> Iterator[Part]:
    if isinstance(value, FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        yield from ((f", its variable {name!r}", cell.cell_contents) for name, cell in cells)
        yield from ((f", a default of {value.__name__}", default) for default in value.__defaults__ or ())
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    else:
        yield from _pickled_parts(value.__reduce_ex__(4))


def _pickled_parts(reduced: str | tuple[Any, ...]) -> Iterator[Part]:
    if isinstance(reduced, str):
        return
    parts: tuple[Any, ...] = (*reduced, None, None, None)
    args, state, items, pairs = parts[1:5]
    for attributes in state if isinstance(state, tuple) else (state,):
        if isinstance(attributes, dict):
            yield from ((f".{name}", child) for name, child in attributes.items())
        elif attributes is not None:
            yield ", its state", attributes
    yield from ((f"[{index}]", child) for index, child in enumerate(items or ()))
    yield from ((f"[{_short(key)}]", child) for key, child in pairs or ())
    yield from ((", a part of it", child) for child in args)


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _advice() -> tuple[tuple[tuple[type, ...], str, str], ...]:
    from io import IOBase
    from socket import socket
    from weakref import ref

    return (
        ((GeneratorType,), "a generator", "pass a list of what it yields"),
        ((CoroutineType,), "a coroutine", "await it and pass its result"),
        ((socket,), "a socket", "pass the address and connect in the method that uses it"),
        ((IOBase,), "an open file", "pass its path or its contents"),
        ((memoryview,), "a memoryview", "pass its bytes(), or the array that it is a view of"),
        ((ref,), "a weak reference", "pass the object itself"),
    )


_ADVICE = _advice()
