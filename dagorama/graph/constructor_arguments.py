"""The constructor arguments of definitions: noted when one is constructed, and sent with each call of its methods.

The rule: together with later assignments and the contents of plain containers, they are all that a worker needs to
construct a definition like the caller's; `definitions` does that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import CO_VARARGS, CO_VARKEYWORDS
from time import monotonic
from types import FrameType
from typing import Any, NamedTuple, cast
from weakref import ref

from dagorama.errors import NotPicklable, PromiseMisuse
from dagorama.models import stored
from dagorama.models.value_ref import ValueRef
from dagorama.user_code.names import class_name
from dagorama.user_code.plain_values import plain_text
from dagorama.values.codec import decode, encode
from dagorama.values.envelope import size_of
from dagorama.values.out_of_band import PutLarge

#: Bytes of packed arguments up to which they are part of the arguments of each node; larger ones are stored once.
INLINE = 4096
#: Seconds for which stored ones are referred to without asking the broker whether it still has them.
KEPT_FOR = 600.0

_CONTAINERS = (list, dict, set)
_BUILDING = frozenset({
    "__init__", "__new__", "__post_init__", "__attrs_post_init__", "model_post_init", "__setstate__",
})  # fmt: skip


class Constructed(NamedTuple):
    """The constructor arguments of a definition, and its attributes that the constructor alone does not determine."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    changed: Mapping[str, Any] = {}  #: attributes assigned after the constructor had returned
    contents: Mapping[str, Any] = {}  #: other attributes that are plain containers, as they are now


@stored.named("Unsent")
class Unsent(NamedTuple):
    """An argument that cannot be pickled: the reader must have a registered definition with one of its own."""

    type: str


@dataclass(slots=True)
class _Record:
    definition: ref[Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)
    packed: bytes | None = None  #: as received, if a worker constructed the definition
    kept: tuple[bytes, ValueRef, float] | None = None


_records: dict[int, _Record] = {}


# --- while a definition is constructed ---------------------------------------------------------------------


def note_constructed(definition: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Note the arguments that a definition is being constructed with."""
    record = _record(definition)
    record.args, record.kwargs = args, kwargs


def given_to_new(frame: FrameType) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a class's own `__new__`, which did not pass them on; none if the frame is another."""
    code, values = frame.f_code, frame.f_locals
    if code.co_name != "__new__":
        return (), {}
    names, rest = code.co_varnames, code.co_argcount + code.co_kwonlyargcount
    args = [values[name] for name in names[1 : code.co_argcount]]
    kwargs = {name: values[name] for name in names[code.co_argcount : rest]}
    if code.co_flags & CO_VARARGS:
        args += values[names[rest]]
        rest += 1
    if code.co_flags & CO_VARKEYWORDS:
        kwargs |= values[names[rest]]
    return tuple(args), kwargs


def note_assigned(definition: object, name: str, depth: int = 2) -> None:
    """Note that an attribute is assigned, unless the constructor does it."""
    frame = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        if code.co_name in _BUILDING and code.co_argcount:
            first = frame.f_locals.get(code.co_varnames[0])
            if first is definition or (code.co_name == "__new__" and first is type(definition)):
                return
        frame = frame.f_back  # type: ignore[assignment]  # the loop ends with the last one
    _record(definition).changed[name] = None


def _record(definition: object) -> _Record:
    number = id(definition)
    record = _records.get(number)
    if record is None or record.definition() is not definition:
        record = _records[number] = _Record(ref(definition, lambda _: _records.pop(number, None)))
    return record


def _known(definition: object) -> _Record | None:
    record = _records.get(id(definition))
    return record if record is not None and record.definition() is definition else None


def constructed(definition: object) -> Constructed:
    """Return the constructor arguments of a definition, and its attributes that were assigned or filled since."""
    record = _known(definition)
    if record is None:
        return Constructed(contents=_contents(definition))
    before = Constructed(record.args, record.kwargs)
    if record.packed is not None:
        before = unpacked(record.packed)
    missing = object()
    changed = {name: value for name in record.changed if (value := getattr(definition, name, missing)) is not missing}
    return before._replace(changed={**before.changed, **changed}, contents=_contents(definition, record))


def unpacked(data: bytes | None) -> Constructed:
    """Return the arguments that `packed` has packed; None stands for no arguments."""
    return Constructed() if data is None else Constructed(*cast("tuple[Any, Any, Any, Any]", decode(data)))


def _contents(definition: object, record: _Record | None = None) -> dict[str, Any]:
    """Return the attributes that are plain containers, except for arguments and assigned attributes."""
    held: dict[str, Any] = getattr(definition, "__dict__", {})
    given = [] if record is None else [*map(id, record.args), *map(id, record.kwargs.values())]
    return {
        name: value for name, value in held.items()
        if type(value) in _CONTAINERS and id(value) not in given and (record is None or name not in record.changed)
        and plain_text(value)
    }  # fmt: skip


def remade(definition: object, reduced: Any) -> Any:
    """Add the noted arguments of a definition to `reduced`, its result of `__reduce_ex__`."""
    record = _known(definition)
    if record is None or not isinstance(reduced, tuple):
        return reduced
    make, args, *state = reduced
    return (_remade, (make, args, _as_bytes(definition, record)), *state)


@stored.named("constructed")
def _remade(make: Callable[..., Any], args: tuple[Any, ...], data: bytes) -> Any:
    """Return a definition from its pickle, with its constructor arguments noted."""
    definition = make(*args)
    note_packed(definition, data)
    return definition


def note_packed(definition: object, data: bytes) -> None:
    """Note that a definition was constructed from packed arguments."""
    record = _record(definition)
    record.packed, record.changed = data, {}


# --- when a method is called -------------------------------------------------------------------------------


def constructor_bytes(definition: object) -> bytes | None:
    """Return the pickled arguments of a definition; None if there are none. Raises PromiseMisuse as `packed`."""
    record = _known(definition)
    if record is None:
        if not getattr(definition, "__dict__", None) or not _contents(definition):
            return None
        record = _record(definition)
    return _as_bytes(definition, record)


def packed(definition: object, put_large: PutLarge) -> bytes | ValueRef | None:
    """Return the packed arguments of a definition, for each call of its methods; None if there are none.

    Raises PromiseMisuse if one of the arguments contains a promise.
    """
    data = constructor_bytes(definition)
    if data is None or len(data) <= INLINE:
        return data
    record = _record(definition)
    if record.kept is None or record.kept[0] != data or monotonic() - record.kept[2] > KEPT_FOR:
        envelope = encode(data, _what(definition), large_from=INLINE, put_large=put_large).envelope
        record.kept = data, ValueRef(envelope, "constructor", size_of(envelope), None), monotonic()
    return record.kept[1]


def _as_bytes(definition: object, record: _Record) -> bytes:
    return _pack(definition) if record.packed is None or record.changed else record.packed


def _what(definition: object) -> str:
    return f"definition {class_name(type(definition))} was constructed with"


def _pack(definition: object) -> bytes:
    found = constructed(definition)
    try:
        encoded = encode(tuple(found), _what(definition))
    except NotPicklable:
        sendable = [_sendable(part) for part in found.args]
        named = [{name: _sendable(part) for name, part in parts.items()} for parts in found[1:]]
        encoded = encode((tuple(sendable), *named), _what(definition))
    if encoded.promises:
        raise PromiseMisuse(
            f"{class_name(type(definition))} was constructed with {encoded.promises[0]!r}, whose value does not "
            "exist yet: pass the promise to a @dagorama method"
        )
    return encoded.envelope


def is_resource(part: object) -> bool:
    """Return whether an argument cannot be pickled, or stands for one that could not."""
    return isinstance(part, Unsent) or isinstance(_sendable(part), Unsent)


def _sendable(part: object) -> object:
    """Return an argument, or an Unsent in its place if it cannot be pickled."""
    try:
        encode(part)
    except NotPicklable:
        return Unsent(type(part).__qualname__)
    return part
