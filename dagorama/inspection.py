"""Find and replace promises in plain data, for programs that do it themselves; calls leave this to the pickler.

Dicts, lists, tuples, sets, frozensets, deques, their subclasses, and dataclasses are searched; copies have the same
classes.

The rule: each object is visited once, in order, without recursion, so that shared objects stay shared and cycles stay
cycles.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from dagorama.models.promise import DAGPromise

T = TypeVar("T")

_MISSING = object()


def find_promises(obj: object) -> list[DAGPromise[Any]]:
    """Return the distinct promises in `obj`, in order, without promises in the arguments of promises."""
    return list(dict.fromkeys(part for part, _ in _walk(obj) if isinstance(part, DAGPromise)))


def resolve_promises(obj: object, resolved_values: Mapping[str, object]) -> Any:
    """Return `obj` with values for promises, by the text of their identifiers; raise ValueError if one is missing."""

    def value(promise: DAGPromise[Any]) -> object:
        try:
            return resolved_values[str(promise.identifier)]
        except KeyError:
            raise ValueError(f"there is no value for {promise!r}") from None

    return map_promises(obj, value)


def extract_promise_identifiers(obj: T) -> T:
    """Return `obj` with promises that have only their identifiers."""
    mapped: T = map_promises(obj, lambda promise: DAGPromise(identifier=promise.identifier))
    return mapped


def map_promises(obj: object, identifier_mapper: Callable[[DAGPromise[Any]], object]) -> Any:
    """Return a copy of `obj` with the result of `identifier_mapper`, called once for each promise, in its place.

    Containers are copied, other objects are not. Raises TypeError if a set or the keys of a dict would contain an
    unhashable value.
    """
    made: dict[int, object] = {}
    mapped: dict[DAGPromise[Any], object] = {}
    met: list[object] = []  # keeps visited objects alive, so that each `id()` stands for one object
    unfilled: list[object] = []

    def new(part: object) -> Any:
        return made.get(id(part), part)

    for part, entering in _walk(obj):
        met.append(part)
        if isinstance(part, DAGPromise):
            if part not in mapped:
                mapped[part] = identifier_mapper(part)
            made[id(part)] = mapped[part]
        elif isinstance(part, (tuple, frozenset)):
            if not entering:
                made[id(part)] = _rebuilt(part, new)
        elif entering:
            made[id(part)] = _emptied(part)
        else:
            if not isinstance(part, (dict, list, set, deque)):
                _fill(made[id(part)], part, new)  # a set may need the hash of a dataclass
            unfilled.append(part)
    # Mutable containers are filled last, when everything is made, because of cycles.
    for part in unfilled:
        _fill(made[id(part)], part, new)
    return new(obj)


def _walk(obj: object) -> Iterator[tuple[object, bool]]:
    """Yield promises, and containers twice: when they are entered (True), and after everything in them (False)."""
    seen: dict[int, object] = {}
    stack = [(obj, True)]
    while stack:
        part, entering = stack.pop()
        if not entering:
            yield part, False
            continue
        parts = None if isinstance(part, DAGPromise) else _parts(part)
        if (parts is None and not isinstance(part, DAGPromise)) or id(part) in seen:
            continue
        seen[id(part)] = part
        yield part, True
        if parts is not None:
            stack.append((part, False))
            stack += [(inner, True) for inner in reversed(list(parts))]


def _parts(part: object) -> Iterable[object] | None:
    """Return the items of a container, in order; None for other objects."""
    if isinstance(part, dict):
        return [inner for item in part.items() for inner in item]
    if isinstance(part, (list, tuple, deque)):
        return part
    if isinstance(part, (set, frozenset)):
        # The order of a set differs between processes.
        promises = [inner for inner in part if isinstance(inner, DAGPromise)]
        others = [inner for inner in part if not isinstance(inner, DAGPromise)]
        return sorted(promises, key=lambda promise: promise.node_id) + others
    if is_dataclass(part) and not isinstance(part, type):
        return list(_attributes(part).values())
    return None


def _attributes(part: Any) -> dict[str, object]:
    found = {field.name: getattr(part, field.name, _MISSING) for field in fields(part)}
    found |= getattr(part, "__dict__", {})  # also attributes that are no fields
    return {name: value for name, value in found.items() if value is not _MISSING}


def _rebuilt(part: Any, new: Callable[[object], Any]) -> object:
    make = getattr(type(part), "_make", type(part))
    return make([new(inner) for inner in part])


def _emptied(part: Any) -> object:
    """Return an empty container of the same class and attributes, such as default_factory or maxlen."""
    empty = copy(part)
    if isinstance(part, (dict, list, set, deque)):
        empty.clear()
    return empty


def _fill(empty: Any, part: Any, new: Callable[[object], Any]) -> None:
    if isinstance(part, dict):
        for key, value in part.items():
            empty[new(key)] = new(value)
    elif isinstance(part, set):
        empty.update([new(inner) for inner in part])
    elif isinstance(part, (list, deque)):
        empty.extend([new(inner) for inner in part])
    else:
        own = getattr(empty, "__dict__", {})
        for name, value in _attributes(part).items():
            if name in own:
                own[name] = new(value)
            else:
                object.__setattr__(empty, name, new(value))  # frozen ones too
