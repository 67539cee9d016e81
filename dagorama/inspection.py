"""Promises inside plain data, for those who look themselves. dagorama's own calls leave this to the pickler.

Looked into are dicts, lists, tuples, sets, frozensets, deques, their subclasses, and dataclasses; what is given back
has the same classes. The rule: each object is visited once, in order, without recursion; so sharing is kept, and
what contains itself still does.
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
    """The distinct promises in `obj`, in the order in which they are met; not those that a promise was made from."""
    return list(dict.fromkeys(part for part, _ in _walk(obj) if isinstance(part, DAGPromise)))


def resolve_promises(obj: object, resolved_values: Mapping[str, object]) -> Any:
    """`obj` with the value of each promise in its place, by the text of its identifier; ValueError without one."""

    def value(promise: DAGPromise[Any]) -> object:
        try:
            return resolved_values[str(promise.identifier)]
        except KeyError:
            raise ValueError(f"there is no value for {promise!r}") from None

    return map_promises(obj, value)


def extract_promise_identifiers(obj: T) -> T:
    """`obj` with promises that are an identifier and nothing else."""
    mapped: T = map_promises(obj, lambda promise: DAGPromise(identifier=promise.identifier))
    return mapped


def map_promises(obj: object, identifier_mapper: Callable[[DAGPromise[Any]], object]) -> Any:
    """A copy of `obj` with what `identifier_mapper` returns in the place of each promise; it is asked once for each.

    Containers are copied, other objects are not. Raises TypeError where a set or dict would hold an unhashable value.
    """
    made: dict[int, object] = {}
    mapped: dict[DAGPromise[Any], object] = {}
    met: list[object] = []  # holds what was looked at, so that an id stands for one object
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
                _fill(made[id(part)], part, new)  # a set may ask for the hash of a dataclass
            unfilled.append(part)
    # What can change is filled last, and with everything made: it may contain what contains it.
    for part in unfilled:
        _fill(made[id(part)], part, new)
    return new(obj)


def _walk(obj: object) -> Iterator[tuple[object, bool]]:
    """Promises, and containers twice: when they are entered (True), and when all that is in them has been met."""
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
    """What a container holds, in order; None for anything else."""
    if isinstance(part, dict):
        return [inner for item in part.items() for inner in item]
    if isinstance(part, (list, tuple, deque)):
        return part
    if isinstance(part, (set, frozenset)):
        # The order of a set is an accident of this process.
        promises = [inner for inner in part if isinstance(inner, DAGPromise)]
        others = [inner for inner in part if not isinstance(inner, DAGPromise)]
        return sorted(promises, key=lambda promise: promise.node_id) + others
    if is_dataclass(part) and not isinstance(part, type):
        return list(_attributes(part).values())
    return None


def _attributes(part: Any) -> dict[str, object]:
    found = {field.name: getattr(part, field.name, _MISSING) for field in fields(part)}
    return {name: value for name, value in found.items() if value is not _MISSING}


def _rebuilt(part: Any, new: Callable[[object], Any]) -> object:
    make = getattr(type(part), "_make", type(part))
    return make([new(inner) for inner in part])


def _emptied(part: Any) -> object:
    """One of the same class and attributes (a default_factory, a maxlen) that holds nothing yet."""
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
        for name, value in _attributes(part).items():
            object.__setattr__(empty, name, new(value))  # frozen ones too
