"""The values of code that does not run: a value is a promise, holds promises, or nothing is known of it.

The rule: a value is one of these only if it certainly is. `join` of two that differ is UNKNOWN, which is never
reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, eq=False)
class Value:
    """Base class."""


@dataclass(frozen=True)
class Marker(Value):
    """A value without parts, of which only the kind is known."""

    name: str


UNKNOWN = Marker("unknown")
#: It is certainly no promise, and holds none.
PLAIN = Marker("plain")
#: The item of an empty list, and the value of a variable that is not bound.
NOTHING = Marker("nothing")


@dataclass(frozen=True)
class Promise(Value):
    maker: str  #: the method whose value it stands for
    line: int  #: where it is made
    is_argument: bool = False  #: it comes from the caller of the function that is analyzed
    is_attached: bool = False  #: of an instance that may have ended already


@dataclass(frozen=True)
class Awaitable(Value):
    """A coroutine, or a task."""

    of: Value
    maker: str = ""  #: the decorated method whose coroutine it is; empty for others
    line: int = 0


#: Lists within lists that are followed, and items of which each is known by itself.
_DEEPEST, _LONGEST = 4, 24


@dataclass(frozen=True)
class Container(Value):
    """Holds other values, to a limited depth, so that no code makes them grow beyond all bounds."""

    depth: int = field(init=False, compare=False, default=1)

    def _limit(self, name: str, parts: tuple[Value, ...]) -> None:
        depth = 1 + max((part.depth for part in parts if isinstance(part, Container)), default=0)
        if depth > _DEEPEST:
            object.__setattr__(self, name, (UNKNOWN,) * len(parts) if name == "items" else UNKNOWN)
            depth = 1
        object.__setattr__(self, "depth", depth)


@dataclass(frozen=True)
class Items(Container):
    """Any number of items."""

    kind: str  #: list, tuple, set, range, iterator or generator
    item: Value

    def __post_init__(self) -> None:
        self._limit("item", (self.item,))


@dataclass(frozen=True)
class Fixed(Container):
    """A list or a tuple of which each item is known."""

    kind: str
    items: tuple[Value, ...]

    def __post_init__(self) -> None:
        self._limit("items", self.items)


@dataclass(frozen=True)
class Table(Container):
    """A dict; nothing is known of its keys."""

    item: Value

    def __post_init__(self) -> None:
        self._limit("item", (self.item,))


def row(kind: str, items: tuple[Value, ...]) -> Items | Fixed:
    """Return a list or a tuple of these items, of which each is known if there are not too many."""
    return Fixed(kind, items) if len(items) <= _LONGEST else Items(kind, join_all(items))


@dataclass(frozen=True)
class Library(Value):
    """Something that is imported from a module that is not checked, or a builtin, by its dotted name."""

    name: str


@dataclass(frozen=True)
class Decorator(Value):
    """`dagorama(...)`, or one of its attributes."""

    kind: str = ""  #: sync, async, or empty for what the function is
    is_streaming: bool = False


@dataclass(frozen=True)
class Stuck(Value):
    """An object that cannot be pickled."""

    what: str


@dataclass(frozen=True)
class Arguments:
    """The arguments of a call."""

    positional: tuple[Value, ...] = ()
    keywords: dict[str, Value] = field(default_factory=dict)
    is_open: bool = False  #: there are others, of which nothing is known

    def all(self) -> tuple[Value, ...]:
        return (*self.positional, *self.keywords.values())

    def at(self, index: int, name: str = "") -> Value:
        if index < len(self.positional):
            return self.positional[index]
        return self.keywords.get(name, UNKNOWN if self.is_open else NOTHING)


CONTAINERS = (Items, Fixed, Table)


def join(one: Value, two: Value) -> Value:
    """Return what is known of a value that is one of two."""
    if one == two or two == NOTHING:
        return one
    if one == NOTHING:
        return two
    if isinstance(one, Promise) and isinstance(two, Promise):
        return replace(
            one, is_argument=one.is_argument and two.is_argument, is_attached=one.is_attached or two.is_attached
        )
    if isinstance(one, Awaitable) and isinstance(two, Awaitable) and bool(one.maker) == bool(two.maker):
        return replace(one, of=join(one.of, two.of))
    if isinstance(one, Table) and isinstance(two, Table):
        return Table(join(one.item, two.item))
    return _joined_items(one, two)


def _joined_items(one: Value, two: Value) -> Value:
    if isinstance(one, Fixed) and isinstance(two, Fixed) and one.kind == two.kind and len(one.items) == len(two.items):
        return Fixed(one.kind, tuple(map(join, one.items, two.items)))
    if isinstance(one, Items | Fixed) and isinstance(two, Items | Fixed) and one.kind == two.kind:
        return Items(one.kind, join(item_of(one), item_of(two)))
    return UNKNOWN


def join_all(values: tuple[Value, ...] | list[Value]) -> Value:
    found: Value = NOTHING
    for value in values:
        found = join(found, value)
    return found


def item_of(value: Value) -> Value:
    """Return what iterating over a value yields."""
    if isinstance(value, Items):
        return value.item
    if isinstance(value, Fixed):
        return join_all(value.items)
    return PLAIN if value in (PLAIN, NOTHING) or isinstance(value, Table) else UNKNOWN


def first_promise(value: Value, depth: int = 4) -> Promise | None:
    """Return a promise that a value is or certainly holds."""
    if isinstance(value, Promise):
        return value
    if not depth:
        return None
    parts = value.items if isinstance(value, Fixed) else (value.item,) if isinstance(value, Items | Table) else ()
    return next((found for part in parts if (found := first_promise(part, depth - 1))), None)


def as_argument(value: Value) -> Value:
    """Return the value with its promises marked as arguments of the caller."""
    return _changed(value, lambda promise: replace(promise, is_argument=True))


def as_result(value: Value) -> Value:
    """Return the value as a caller gets it: the line in which the function made a promise may be in another file."""
    return _changed(
        value, lambda promise: replace(promise, is_argument=False, line=promise.line if promise.is_argument else 0)
    )


def made_at(line: int, value: Value) -> Value:
    """Return the value with this line for promises that a called function has made."""
    return _changed(value, lambda promise: promise if promise.line else replace(promise, line=line))


def _changed(value: Value, change: Callable[[Promise], Promise]) -> Value:
    """Return the value with all its promises changed."""
    if isinstance(value, Promise):
        return change(value)
    if isinstance(value, Fixed):
        return replace(value, items=tuple(_changed(item, change) for item in value.items))
    if isinstance(value, Items | Table):
        return replace(value, item=_changed(value.item, change))
    if isinstance(value, Awaitable):
        return replace(value, of=_changed(value.of, change))
    return value
