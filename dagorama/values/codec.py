"""Objects to bytes and back: an envelope is a header, a table of the promises inside, and a pickle.

The rule: an object is unpickled again for each caller, and only from an envelope that `signing` has opened.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from types import NoneType
from typing import Any, NamedTuple, cast

from dagorama.api.contract import JSON, NAMES_LARGE, PARTS, SIGNAL, SIGNED
from dagorama.errors import BrokerError, PromiseMisuse, ValueNotReadable
from dagorama.models import stored
from dagorama.models.failure import Failure
from dagorama.models.promise import DAGPromise
from dagorama.models.value_ref import ValueRef
from dagorama.values.by_value import PROTOCOL
from dagorama.values.envelope import PLAIN, body, content, flags, large_of, parts_of, seal
from dagorama.values.out_of_band import Buffer, GetLarge, OutOfBandReader, PutLarge, fetched, loads
from dagorama.values.pickling import Promises, pickled

# No promise can be inside of these: they are left to pickle.dumps, which is five times as fast.
_ATOMS = frozenset({int, float, complex, str, bytes, bool, NoneType})

_Call = tuple[tuple[object, ...], dict[str, object]]


class Called(NamedTuple):
    """The arguments of a node, and a pickle of the constructor arguments of its definition, if there are any."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    constructor: bytes | None = None
    scheduled: str = ""  #: the time for which a schedule has started the instance, see `scheduled_for`


class Encoded(NamedTuple):
    """An envelope and the distinct promises in it, in the order of its table; `refs` are their 16-byte IDs."""

    envelope: bytes
    refs: Sequence[bytes]
    promises: Sequence[DAGPromise[Any]]
    tolerant: Sequence[int] = ()  #: indices in `refs` of promises that occur only under outcome()


class FailedSource(NamedTuple):
    """The failure of a promise's node, as an item of `fill`: it replaces the promise under outcome() only."""

    failure: Failure


def encode(
    value: object, what: str = "value", *, large_from: int | None = None, put_large: PutLarge | None = None
) -> Encoded:
    """Return `value` in an envelope, without the large parts, which go to `put_large`.

    Large are parts of `large_from` bytes or more of a pickle of that size, and the rest if it is still of that size.
    `what` is a noun for errors, such as "result". Raises NotPicklable, which names the smallest part that cannot be
    pickled, and PromiseMisuse for an outcome(), which only arguments can hold.
    """
    limit = inf if put_large is None or large_from is None else large_from
    is_large = type(value) is bytes and len(value) >= limit
    if type(value) in _ATOMS and not is_large:
        data = pickle.dumps(value, PROTOCOL)
        if len(data) < limit:
            return Encoded(PLAIN + data, (), ())
        is_large = True
    try:
        data, promises = pickled(value, large_from if put_large else None, is_large)
    except Exception as error:
        from dagorama.values.diagnostics import not_picklable

        raise not_picklable(error, [(f"the {what}", value)], pickled) from error
    if promises.outcomes:
        raise PromiseMisuse(
            f"the {what} holds the {promises.outcomes[0]!r}; only arguments of a @dagorama method can hold one: pass it"
            " to such a method, and return the promise of that call"
        )
    return _sealed(data, promises, large_from, put_large)


def encode_call(
    args: tuple[object, ...],
    kwargs: dict[str, object],
    function: Callable[..., object] | None = None,
    *,
    large_from: int | None = None,
    put_large: PutLarge | None = None,
    constructor: bytes | ValueRef | None = None,
    scheduled: str = "",
) -> Encoded:
    """Return the arguments of a call, without `self`, in an envelope; errors use the parameter names of `function`.

    `constructor` is a pickle of the constructor arguments of the definition, or a reference to one; `scheduled` is the
    time for which a schedule has started the instance.
    """
    call: tuple[object, ...] = (args, kwargs) if constructor is None else (args, kwargs, constructor)
    if scheduled:
        call = (args, kwargs, constructor, scheduled)
    limit = inf if put_large is None or large_from is None else large_from
    is_large = bytes in map(type, args) and max(len(arg) for arg in args if type(arg) is bytes) >= limit
    is_plain = _ATOMS.issuperset(map(type, args)) and (not kwargs or _ATOMS.issuperset(map(type, kwargs.values())))
    if is_plain and not is_large and type(constructor) is not ValueRef:
        data = pickle.dumps(call, PROTOCOL)
        if len(data) < limit:
            return Encoded(PLAIN + data, (), ())
        is_large = True
    try:
        data, promises = pickled(call, large_from if put_large else None, is_large)
    except Exception as error:
        from dagorama.values.diagnostics import not_picklable, parameters

        raise not_picklable(error, parameters(function, args, kwargs), pickled) from error
    return _sealed(data, promises, large_from, put_large)


def _sealed(data: bytes, promises: Promises, large_from: int | None, put_large: PutLarge | None) -> Encoded:
    parts = promises.left_out.stored(put_large) if promises.left_out else ()
    apart = large_from is not None and put_large is not None and len(data) >= large_from
    large = put_large(data) if apart and put_large else None
    if not promises:
        return Encoded(seal(data, (), large, parts), (), ())
    refs = [promise.node_id for promise in promises]
    return Encoded(seal(data, promises, large, parts), refs, promises, sorted(promises.tolerant))


# --- decoding --------------------------------------------------------------------------------------


def decode(
    envelope: bytes, fill: Sequence[object] | None = None, *, what: str = "value", get_large: GetLarge | None = None
) -> object:
    """Return the object in `envelope`, with `fill[i]` in place of the promise `references(envelope)[i]`.

    `fill[i]` is a value, or a FailedSource. Raises ValueNotReadable; a BrokerError of `get_large` and exceptions such
    as SystemExit, which do not come from the value, pass through.
    """
    try:
        if envelope[:2] == PLAIN:
            return pickle.loads(envelope[2:])
        return _filled(envelope, fill or (), get_large)
    except BrokerError:
        raise
    except Exception as error:
        raise _not_readable(error, what, envelope, fill, get_large) from error


def decode_call(
    envelope: bytes,
    fill: Sequence[object] | None = None,
    function: Callable[..., object] | None = None,
    *,
    get_large: GetLarge | None = None,
) -> _Call:
    """Return the arguments in an envelope of `encode_call`, with values for promises; raise ValueNotReadable."""
    called = decode_called(envelope, fill, function, get_large=get_large)
    return called.args, called.kwargs


def decode_called(
    envelope: bytes,
    fill: Sequence[object] | None = None,
    function: Callable[..., object] | None = None,
    *,
    get_large: GetLarge | None = None,
) -> Called:
    """Return what `decode_call` returns, and the pickled constructor arguments of the definition."""
    try:
        if envelope[:2] == PLAIN:
            return Called(*pickle.loads(envelope[2:]))
        return Called(*cast(_Call, _filled(envelope, fill or (), get_large)))
    except BrokerError:
        raise
    except Exception as error:
        raise _not_readable(error, function, envelope, fill, get_large) from error


def _filled(envelope: bytes, fill: Sequence[object], get_large: GetLarge | None) -> object:
    marks = flags(envelope)
    if marks & SIGNED:
        raise ValueNotReadable("its signature has not been checked")
    if marks & (JSON | SIGNAL):
        raise ValueNotReadable("it is JSON, which is never unpickled, and a pickle is expected")
    number, start = body(envelope)
    if len(fill) != number:
        raise ValueNotReadable(f"it holds {number} promises and {len(fill)} values were given for them")
    if not marks & NAMES_LARGE:
        return loads(envelope[start:], None, _fills(fill))
    large = large_of(envelope)
    data: Buffer = content(envelope) if large is None else fetched(*large, get_large)
    if not number and not marks & PARTS:
        return pickle.loads(data)
    return loads(data, OutOfBandReader(parts_of(envelope), get_large), _fills(fill))


_PROMISE_VALUE, _OUTCOME_VALUE = stored.global_name("promise_value"), stored.global_name("outcome_value")


def _fills(values: Sequence[object]) -> dict[tuple[str, str], Callable[..., object]]:
    """Return the functions that supply values, by the names that a pickle has for them."""
    if FailedSource in map(type, values):
        return {_PROMISE_VALUE: partial(_value, values), _OUTCOME_VALUE: partial(_outcome, values)}
    return {_PROMISE_VALUE: values.__getitem__, _OUTCOME_VALUE: values.__getitem__}


def value_of_promise(values: Sequence[object], index: int, is_outcome: bool) -> object:
    """Return the value of a promise; for a failed one, its Failure under outcome(). Raises ValueNotReadable."""
    return _outcome(values, index) if is_outcome else _value(values, index)


def _value(values: Sequence[object], index: int) -> object:
    found = values[index]
    if isinstance(found, FailedSource):
        raise ValueNotReadable(f"a promise in it failed: {found.failure}")
    return found


def _outcome(values: Sequence[object], index: int) -> object:
    found = values[index]
    return found.failure if isinstance(found, FailedSource) else found


def _not_readable(
    error: Exception,
    what: str | Callable[..., object] | None,
    envelope: bytes,
    fill: Sequence[object] | None,
    get_large: GetLarge | None,
) -> ValueNotReadable:
    """Return the error for an envelope; `what` is a noun, or the function that the arguments belong to."""
    from dagorama.values.diagnostics import not_readable

    return not_readable(error, what, fill or (), lambda values: _filled(envelope, values, get_large))
