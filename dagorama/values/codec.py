"""Objects to bytes and back: an envelope is a header, a table of the promises inside, and a pickle.

The rule: the pickler finds and fills the promises, in one pass, wherever they stand; no Python runs for any other
object. What is unpickled is made anew for each caller, and nothing is that has not been opened by `signing`.
"""

import copyreg
import pickle
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from io import BytesIO
from math import inf
from types import NoneType
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar, cast

from dagorama.errors import BrokerError, DagoramaError, PromiseMisuse, ValueNotReadable
from dagorama.models.failure import Failure
from dagorama.models.outcome import Outcome
from dagorama.models.promise import DAGPromise
from dagorama.models.value_ref import Kept
from dagorama.user_code.modules import may_hold_local
from dagorama.values import pickling
from dagorama.values.envelope import LARGE as LARGE
from dagorama.values.envelope import PARTS, PLAIN, SIGNED, body, flags, parts_of, pickle_in, seal
from dagorama.values.envelope import REFS as REFS
from dagorama.values.envelope import large_of as large_of
from dagorama.values.envelope import references as references
from dagorama.values.out_of_band import Buffer, LeftOut, PartsIn, fetched, loads
from dagorama.values.out_of_band import GetLarge as GetLarge
from dagorama.values.out_of_band import PutLarge as PutLarge
from dagorama.values.pickling import PROTOCOL as PROTOCOL

K = TypeVar("K", bound=Hashable)
K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)

_Call = tuple[tuple[object, ...], dict[str, object]]


class Called(NamedTuple):
    """What a node is called with, and a pickle of what its definition was constructed with, if that has arguments."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    constructor: bytes | None = None

#: stands in the pickle of a plain object(), which may be a sentinel of the script
_OBJECT = b"\x8c\x08builtins\x94\x8c\x06object\x94"
# Nothing can be inside of these: pickle.dumps, which knows no promises but is five times as fast, will do.
_ATOMS = frozenset({int, float, complex, str, bytes, bool, NoneType})


class Envelopes(Protocol[K_contra]):
    """Opened envelopes by key: a mapping, or what opens them when they are asked for."""

    def get(self, key: K_contra, /) -> bytes | None: ...


class Encoded(NamedTuple):
    """An envelope and the distinct promises in it, in the order of its table; `refs` are their 16-byte ids."""

    envelope: bytes
    refs: Sequence[bytes]
    promises: Sequence[DAGPromise[Any]]
    tolerant: Sequence[int] = ()  #: places in `refs` that stand under outcome() and nowhere without it


class FailedSource(NamedTuple):
    """Stands in `fill` for a promise whose node failed. It fills the places under outcome(), and no others."""

    failure: Failure


def encode(
    value: object, what: str = "value", *, large_from: int | None = None, put_large: PutLarge | None = None
) -> Encoded:
    """`value` in an envelope; of a pickle of `large_from` bytes or more, parts of that size go to `put_large`, and so
    does what is left where it is still that large.

    `what` is a noun for errors, such as "result". Raises NotPicklable naming the smallest part that cannot be, and
    PromiseMisuse for an outcome(), which only arguments can hold.
    """
    limit = inf if put_large is None or large_from is None else large_from
    is_large = type(value) is bytes and len(value) >= limit
    if type(value) in _ATOMS and not is_large:
        data = pickle.dumps(value, PROTOCOL)
        if len(data) < limit:
            return Encoded(PLAIN + data, (), ())
        is_large = True
    try:
        data, promises = _pickled(value, large_from if put_large else None, is_large)
    except Exception as error:
        from dagorama.values.diagnostics import not_picklable

        raise not_picklable(error, [(f"the {what}", value)], _pickled) from error
    if promises.outcomes:
        raise PromiseMisuse(
            f"the {what} holds the {promises.outcomes[0]!r}, which has its place in the arguments of a @dagorama "
            "method: pass it to one, and return that one's promise"
        )
    return _sealed(data, promises, large_from, put_large)


def encode_call(
    args: tuple[object, ...],
    kwargs: dict[str, object],
    function: Callable[..., object] | None = None,
    *,
    large_from: int | None = None,
    put_large: PutLarge | None = None,
    constructor: bytes | Kept | None = None,
) -> Encoded:
    """The arguments of a call, without `self`, in an envelope; errors name them as `function` does.

    `constructor` is a pickle of what the definition was constructed with, or a reference to that.
    """
    call = (args, kwargs) if constructor is None else (args, kwargs, constructor)
    limit = inf if put_large is None or large_from is None else large_from
    is_large = bytes in map(type, args) and max(len(arg) for arg in args if type(arg) is bytes) >= limit
    is_plain = _ATOMS.issuperset(map(type, args)) and (not kwargs or _ATOMS.issuperset(map(type, kwargs.values())))
    if is_plain and not is_large and type(constructor) is not Kept:
        data = pickle.dumps(call, PROTOCOL)
        if len(data) < limit:
            return Encoded(PLAIN + data, (), ())
        is_large = True
    try:
        data, promises = _pickled(call, large_from if put_large else None, is_large)
    except Exception as error:
        from dagorama.values.diagnostics import not_picklable, parameters

        raise not_picklable(error, parameters(function, args, kwargs), _pickled) from error
    return _sealed(data, promises, large_from, put_large)


def decode(
    envelope: bytes, fill: Sequence[object] | None = None, *, what: str = "value", get_large: GetLarge | None = None
) -> object:
    """The object in `envelope`, with `fill[i]` where the promise `references(envelope)[i]` stood.

    `fill[i]` is a value, or a FailedSource where a failure was asked for in its place. Raises ValueNotReadable, and
    lets through what is not of the value: a BrokerError of `get_large`, SystemExit.
    """
    try:
        if envelope[:2] == PLAIN:
            return pickle.loads(envelope[2:])
        return _filled(envelope, fill or (), get_large)
    except BrokerError:
        raise
    except Exception as error:
        raise _not_readable(error, what, envelope, fill or (), get_large) from error


def decode_call(
    envelope: bytes,
    fill: Sequence[object] | None = None,
    function: Callable[..., object] | None = None,
    *,
    get_large: GetLarge | None = None,
) -> _Call:
    """What `encode_call` was given, with the promises filled; raises ValueNotReadable."""
    args, kwargs, _ = decode_called(envelope, fill, function, get_large=get_large)
    return args, kwargs


def decode_called(
    envelope: bytes,
    fill: Sequence[object] | None = None,
    function: Callable[..., object] | None = None,
    *,
    get_large: GetLarge | None = None,
) -> Called:
    """The same, with what the definition was constructed with."""
    try:
        if envelope[:2] == PLAIN:
            return Called(*pickle.loads(envelope[2:]))
        return Called(*cast(_Call, _filled(envelope, fill or (), get_large)))
    except BrokerError:
        raise
    except Exception as error:
        raise _not_readable(error, function, envelope, fill or (), get_large) from error


def assemble(
    roots: Sequence[K],
    envelopes: Envelopes[K],
    refs: Mapping[K, Sequence[K]] | None = None,
    *,
    get_large: GetLarge | None = None,
) -> list[object]:
    """The values of `roots`, whose promises are filled with the values of others, and so on, to any depth.

    `refs[key]` says which key stands for each reference of `envelopes[key]`; keys without references may be
    missing, and without `refs` the keys are node ids. Each key is unpickled once. Raises ValueNotReadable.
    """
    values: dict[K, object] = {}
    for root in roots:
        if root not in values:
            _assemble(root, envelopes, refs, values, get_large)
    return [values[root] for root in roots]


def decode_promised(
    root: K,
    envelopes: Envelopes[K],
    refs: Mapping[K, Sequence[K]] | None = None,
    *,
    get_large: GetLarge | None = None,
) -> object:
    """The value of one root; see assemble."""
    return assemble((root,), envelopes, refs, get_large=get_large)[0]


# --- pickling ------------------------------------------------------------------------------------


def _fill(index: int) -> NoReturn:
    """Stands in every pickle where a promise stood; decode puts the values in its place."""
    raise ValueNotReadable(f"this pickle holds the promise {index} of its envelope: read it with dagorama.values.codec")


def _fill_outcome(index: int) -> NoReturn:
    """The same where an outcome() stood, for which a Failure will do."""
    _fill(index)


class _Promises(list[DAGPromise[Any]]):
    """The distinct promises that one pickler has met, in that order."""

    __slots__ = ("_indices", "left_out", "outcomes", "tolerant")

    def __init__(self) -> None:
        self._indices: dict[object, int] = {}
        self.outcomes: list[Outcome[Any]] = []
        self.tolerant: set[int] = set()  #: indices of those that were met as outcomes only
        self.left_out: LeftOut | None = None  #: the large parts that it has met

    def reduce(self, promise: DAGPromise[Any]) -> tuple[Callable[[int], object], tuple[int]]:
        key = promise._record[:2]
        index = self._indices.get(key)
        if index is None:
            index = self._indices[key] = len(self)
            self.append(promise)
        elif self.tolerant:
            self.tolerant.discard(index)
        return _fill, (index,)

    def reduce_outcome(self, promise: Outcome[Any]) -> tuple[Callable[[int], object], tuple[int]]:
        key = promise._record[:2]
        index = self._indices.get(key)
        if index is None:
            index = self._indices[key] = len(self)
            self.append(promise)
            self.tolerant.add(index)
        self.outcomes.append(promise)
        return _fill_outcome, (index,)

    def reduce_kept(self, kept: Kept) -> tuple[Callable[..., object], tuple[Any, ...]]:
        if self.left_out is None:
            self.left_out = LeftOut()
        return self.left_out.reduce_kept(kept)

    @property
    def table(self) -> dict[type, Callable[[Any], tuple[Callable[..., object], tuple[Any, ...]]]]:
        return {DAGPromise: self.reduce, Outcome: self.reduce_outcome, Kept: self.reduce_kept}


class _Parting(pickle.Pickler):
    """Leaves out the large parts of a value."""

    left_out: LeftOut

    def persistent_id(self, found: Any, /) -> int | None:
        return self.left_out.persistent_id(found)


def _pickled(value: object, large_from: int | None = None, is_large: bool = False) -> tuple[bytes, _Promises]:
    """The pickle of a value; of one that is large, without its large parts. Only then is it pickled twice."""
    if not is_large:
        data, promises = _pickled_once(value, None, large_from)
        if large_from is None or len(data) < large_from:
            return data, promises
    return _pickled_once(value, large_from)


def _pickled_once(value: object, part_from: int | None, enough: int | None = None) -> tuple[bytes, _Promises]:
    """Without parts from that size on. Of `enough` bytes or more only the length counts."""
    try:
        file, promises = BytesIO(), _Promises()
        if part_from is None:
            pickler = pickle.Pickler(file, PROTOCOL)
        else:
            promises.left_out = LeftOut(part_from)
            pickler = _parting(file, promises.left_out)
        pickler.dispatch_table = {**copyreg.dispatch_table, **promises.table}
        pickler.dump(value)
        data = file.getvalue()
    except RecursionError:
        raise
    except Exception:
        return _pickled_by_value(value, part_from)
    if enough is not None and len(data) >= enough:
        return data, promises
    # What lives in __main__ is found by its name in no other process: it travels by value, or by the script's own name.
    return _pickled_by_value(value, part_from) if may_hold_local(data) or _OBJECT in data else (data, promises)


def _parting(file: BytesIO, left_out: LeftOut) -> pickle.Pickler:
    pickler = _Parting(file, PROTOCOL, buffer_callback=left_out.buffer_callback)
    pickler.left_out = left_out
    return pickler


def _pickled_by_value(value: object, part_from: int | None) -> tuple[bytes, _Promises]:
    promises = _Promises()
    if part_from is not None:
        promises.left_out = LeftOut(part_from)
    return pickling.dumps(value, promises.table, promises.left_out), promises


def _sealed(data: bytes, promises: _Promises, large_from: int | None, put_large: PutLarge | None) -> Encoded:
    parts = promises.left_out.stored(put_large) if promises.left_out else ()
    apart = large_from is not None and put_large is not None and len(data) >= large_from
    large = put_large(data) if apart and put_large else None
    if not promises:
        return Encoded(seal(data, (), large, parts), (), ())
    refs = [promise.node_id for promise in promises]
    return Encoded(seal(data, promises, large, parts), refs, promises, sorted(promises.tolerant))


# --- unpickling ----------------------------------------------------------------------------------


def _fills(values: Sequence[object]) -> dict[tuple[str, str], Callable[..., object]]:
    """What puts the value of an index in its place, by the name that stands there in the pickle."""
    if FailedSource in map(type, values):
        return {(__name__, "_fill"): partial(_value, values), (__name__, "_fill_outcome"): partial(_outcome, values)}
    return {(__name__, "_fill"): values.__getitem__, (__name__, "_fill_outcome"): values.__getitem__}


def _value(values: Sequence[object], index: int) -> object:
    found = values[index]
    if isinstance(found, FailedSource):
        raise ValueNotReadable(f"a promise in it is of {found.failure}")
    return found


def _outcome(values: Sequence[object], index: int) -> object:
    found = values[index]
    return found.failure if isinstance(found, FailedSource) else found


def _filled(envelope: bytes, fill: Sequence[object], get_large: GetLarge | None) -> object:
    marks = flags(envelope)
    if marks & SIGNED:
        raise ValueNotReadable("its signature has not been checked")
    number, start = body(envelope)
    if len(fill) != number:
        raise ValueNotReadable(f"it holds {number} promises and {len(fill)} values were given for them")
    if not marks & (LARGE | PARTS):
        return loads(envelope[start:], None, _fills(fill))
    large = large_of(envelope)
    data: Buffer = pickle_in(envelope) if large is None else fetched(*large, get_large)
    if not number and not marks & PARTS:
        return pickle.loads(data)
    return loads(data, PartsIn(parts_of(envelope), get_large), _fills(fill))


def _assemble(
    root: K,
    envelopes: Envelopes[K],
    refs: Mapping[K, Sequence[K]] | None,
    values: dict[K, object],
    get_large: GetLarge | None,
) -> None:
    stack = [root]
    opened: set[K] = set()
    while stack:
        key = stack[-1]
        if key in values:
            stack.pop()
            continue
        envelope = envelopes.get(key)
        if envelope is None:
            raise ValueNotReadable(f"the value of {_shown(key)} is needed and was not sent")
        needed = cast("Sequence[K]", references(envelope)) if refs is None else refs.get(key, ())
        if missing := needed and [other for other in needed if other not in values]:
            if key in opened:
                raise ValueNotReadable(f"the value of {_shown(key)} contains itself")
            opened.add(key)
            stack += missing
        else:
            fill = [values[other] for other in needed] if needed else ()
            values[key] = decode(envelope, fill, what="value of a node", get_large=get_large)


# --- what went wrong: slow, and only then ----------------------------------------------------------

_What = str | Callable[..., object] | None  # a noun, or the function whose arguments these are


def _shown(key: object) -> str:
    return f"node {key.hex()}" if isinstance(key, bytes) else f"node {key}"


def _not_readable(
    error: Exception, what: _What, envelope: bytes, fill: Sequence[object], get_large: GetLarge | None
) -> ValueNotReadable:
    whole = f"the {what}" if isinstance(what, str) else "the arguments"
    if isinstance(error, DagoramaError):
        return ValueNotReadable(f"{whole} cannot be read: {error}")
    if isinstance(error, TypeError) and (place := _unhashable_place(what, envelope, fill, get_large)):
        return ValueNotReadable(place)
    hint = ", its module cannot be imported here" if isinstance(error, ImportError) else ""
    return ValueNotReadable(f"{whole} cannot be unpickled{hint} ({type(error).__name__}: {error})")


def _unhashable_place(what: _What, envelope: bytes, fill: Sequence[object], get_large: GetLarge | None) -> str | None:
    """Reads the value again with something hashable in place of what is not, and looks where that has gone."""
    from dagorama.values.diagnostics import Hole, hashed_hole, is_hashable, parameters

    holes = [value if is_hashable(value) else Hole(value) for value in fill]
    try:
        value: Any = _filled(envelope, holes, get_large)
        parts = [(f"the {what}", value)] if isinstance(what, str) else parameters(what, *value[:2])
    except Exception:
        return None
    return hashed_hole(parts)
