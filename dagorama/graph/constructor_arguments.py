"""The arguments that a definition was constructed with: they travel with each call, so that a worker can construct it.

The rule: a worker runs a node on a definition like the caller's, made by the constructor from the same arguments, with
what was assigned to it since; or it says that it cannot.
"""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import CO_VARARGS, CO_VARKEYWORDS, signature
from time import monotonic
from types import FrameType
from typing import Any, NamedTuple, cast
from weakref import ref

from dagorama.errors import DefinitionDiffers, DefinitionNotRegistered, NotPicklable, PromiseMisuse
from dagorama.models import stored
from dagorama.models.value_ref import Kept
from dagorama.user_code.class_code import plain_text
from dagorama.user_code.names import class_name
from dagorama.values.codec import decode, encode
from dagorama.values.envelope import size_of
from dagorama.values.out_of_band import PutLarge

#: bytes of a packed constructor up to which it stands in each node's arguments; a larger one is stored once
INLINE = 4096
#: seconds for which a stored one is named without asking the broker whether it still has it
KEPT_FOR = 600.0
#: definitions that a process keeps, of those that it made for nodes
MADE = 128

_CONTAINERS = (list, dict, set)
_BUILDING = frozenset({
    "__init__", "__new__", "__post_init__", "__attrs_post_init__", "model_post_init", "__setstate__",
})  # fmt: skip


class Constructed(NamedTuple):
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    changed: Mapping[str, Any] = {}  #: attributes that were assigned after the constructor had returned
    contents: Mapping[str, Any] = {}  #: other attributes that are plain containers, as they are now


@stored.named("Unsent")
class Unsent(NamedTuple):
    """Stands for what cannot be pickled: the reader has to have one of its own."""

    type: str


@dataclass(slots=True)
class _Record:
    definition: ref[Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)
    packed: bytes | None = None  #: as it came, if a worker made the definition
    kept: tuple[bytes, Kept, float] | None = None


_records: dict[int, _Record] = {}
_made: OrderedDict[tuple[type, bytes], Any] = OrderedDict()


# --- what is noted while a definition is made --------------------------------------------------------------


def note_constructed(definition: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Remember what a definition is being constructed with."""
    record = _record(definition)
    record.args, record.kwargs = args, kwargs


def given_to_new(frame: FrameType) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a class's own `__new__` has got and has not handed on; nothing if that frame is not one."""
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
    """Remember that an attribute is assigned, unless the constructor does it."""
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
    """Return what a definition was constructed with, and what was assigned since."""
    record = _known(definition)
    if record is None:
        return Constructed(contents=_contents(definition))
    before = Constructed(record.args, record.kwargs)
    if record.packed is not None:
        before = Constructed(*cast("tuple[Any, Any, Any, Any]", decode(record.packed)))
    missing = object()
    changed = {name: value for name in record.changed if (value := getattr(definition, name, missing)) is not missing}
    return before._replace(changed={**before.changed, **changed}, contents=_contents(definition, record))


def _contents(definition: object, record: _Record | None = None) -> dict[str, Any]:
    """Plain containers among the attributes, but for those that travel already."""
    held: dict[str, Any] = getattr(definition, "__dict__", {})
    given = [] if record is None else [*map(id, record.args), *map(id, record.kwargs.values())]
    return {
        name: value for name, value in held.items()
        if type(value) in _CONTAINERS and id(value) not in given and (record is None or name not in record.changed)
        and plain_text(value)
    }  # fmt: skip


def remade(definition: object, reduced: Any) -> Any:
    """Return how a definition is pickled or copied: as `reduced` says, and what is noted here goes along."""
    record = _known(definition)
    if record is None or not isinstance(reduced, tuple):
        return reduced
    make, args, *state = reduced
    return (_remade, (make, args, _as_bytes(definition, record)), *state)


@stored.named("constructed")
def _remade(make: Callable[..., Any], args: tuple[Any, ...], data: bytes) -> Any:
    """Return a definition from its pickle, with its constructor arguments noted."""
    definition = make(*args)
    record = _record(definition)
    record.packed, record.changed = data, {}
    return definition


# --- how it travels ----------------------------------------------------------------------------------------


def packed(definition: object, put_large: PutLarge) -> bytes | Kept | None:
    """Return what goes with each call of a definition's methods; None if it was constructed without arguments.

    Raises PromiseMisuse if there is a promise among the arguments.
    """
    record = _known(definition)
    if record is None:
        if not getattr(definition, "__dict__", None) or not _contents(definition):
            return None
        record = _record(definition)
    data = _as_bytes(definition, record)
    if len(data) <= INLINE:
        return data
    if record.kept is None or record.kept[0] != data or monotonic() - record.kept[2] > KEPT_FOR:
        envelope = encode(data, _what(definition), large_from=INLINE, put_large=put_large).envelope
        record.kept = data, Kept(envelope, "constructor", size_of(envelope), None), monotonic()
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
            f"{class_name(type(definition))} was constructed with {encoded.promises[0]!r}, whose value is not there "
            "yet: pass the promise to a @dagorama method"
        )
    return encoded.envelope


def _sendable(part: object) -> object:
    try:
        encode(part)
    except NotPicklable:
        return Unsent(type(part).__qualname__)
    return part


# --- how it is made again ----------------------------------------------------------------------------------


def made_again(cls: type, data: bytes | None, registered: object | None) -> Any:
    """Return the definition that a node runs on: `registered` if it is like the caller's, else one made from `data`.

    Raises DefinitionNotRegistered if what it takes to make it could not travel, DefinitionDiffers if the registered one
    is another, and what the constructor raises.
    """
    if registered is not None:
        difference = _difference(cls, constructed(registered), _sent(data))
        if difference is None:
            return registered
        if difference.is_final:
            raise DefinitionDiffers(
                f"{class_name(cls)} is registered here with {difference.text}: construct both with the same arguments, "
                "or register none"
            )
    key = cls, data or b""
    definition = _made.get(key)
    if definition is not None:
        _made.move_to_end(key)
        return definition
    definition = _made[key] = _made_from(cls, data)
    if len(_made) > MADE:
        _made.popitem(last=False)
    return definition


def _sent(data: bytes | None) -> Constructed:
    return Constructed() if data is None else Constructed(*cast("tuple[Any, Any, Any, Any]", decode(data)))


def _made_from(cls: type, data: bytes | None) -> Any:
    sent = _sent(data)
    if unsent := _unsent(sent):
        raise DefinitionNotRegistered(
            f"{class_name(cls)} was constructed with {unsent}, which cannot be pickled, and none is registered "
            f"here; call register_definition({cls.__qualname__}(...)) in a module that the worker imports "
            "(worker --import MODULE)"
        )
    definition = cls(*sent.args, **sent.kwargs) if sent.args or sent.kwargs else _made_without(cls)
    for name, value in {**sent.contents, **sent.changed}.items():
        object.__setattr__(definition, name, value)
    if data:
        record = _record(definition)
        record.packed, record.changed = data, {}
    return definition


def _made_without(cls: type) -> Any:
    try:
        return cls()
    except Exception as error:
        raise DefinitionNotRegistered(
            f"{class_name(cls)}() cannot be made without arguments ({type(error).__name__}: {error}); call "
            f"register_definition({cls.__qualname__}(...)) in each process that needs it, for a worker in a "
            "module that it imports (worker --import MODULE)"
        ) from error


def _unsent(sent: Constructed) -> str:
    """The parts that could not travel, as text."""
    positional = [part.type for part in sent.args if isinstance(part, Unsent)]
    named = [
        f"{name}, a {part.type}" for parts in (sent.kwargs, sent.changed) for name, part in parts.items()
        if isinstance(part, Unsent)
    ]  # fmt: skip
    return " and ".join([*(f"a {name}" for name in positional), *named])


class _Difference(NamedTuple):
    text: str
    is_final: bool  #: one cannot be made from what the caller has sent


def _difference(cls: type, ours: Constructed, sent: Constructed) -> _Difference | None:
    """How the registered definition differs from the caller's; a resource that cannot be pickled is like any other."""
    one, other = _bound(cls, ours), _bound(cls, sent)
    if one is None or other is None:
        return None
    resources = [name for name, part in {**one, **other}.items() if _is_resource(one.get(name, part))]
    for name in sorted({*one, *other} - set(resources)):
        if name not in one or name not in other or not _same(one[name], other[name]):
            text = f"{name}={_shown(one, name)}, and the caller has {name}={_shown(other, name)}"
            return _Difference(text, bool(resources) or bool(_unsent(sent)))
    return None


def _bound(cls: type, found: Constructed) -> dict[str, Any] | None:
    """Arguments by name with their defaults, and assigned attributes; None if the constructor does not take them."""
    try:
        call = signature(cls.__init__).bind(None, *found.args, **found.kwargs)  # type: ignore[misc]  # as type() calls it
    except (TypeError, ValueError):
        return None
    call.apply_defaults()
    names = dict(list(call.arguments.items())[1:])
    return {**names, **{f".{name}": value for name, value in found.changed.items()}}


def _is_resource(part: object) -> bool:
    return isinstance(part, Unsent) or isinstance(_sendable(part), Unsent)


def _same(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:  # arrays have no one answer
        return pickle.dumps(one) == pickle.dumps(other)


def _shown(parts: Mapping[str, Any], name: str) -> str:
    return repr(parts[name])[:100] if name in parts else "nothing"
