"""Pickle a value: by reference, again without its large parts, and by value if other processes cannot import it.

The rule: the pickler finds the promises, in one pass, at any depth; no Python code runs for other objects.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any, NoReturn

from dagorama.errors import ValueNotReadable
from dagorama.models import stored
from dagorama.models.outcome import Outcome
from dagorama.models.promise import DAGPromise
from dagorama.models.value_ref import ValueRef
from dagorama.user_code.modules import may_hold_local
from dagorama.values import by_value
from dagorama.values.by_value import PROTOCOL
from dagorama.values.out_of_band import OutOfBandWriter

#: A plain object() in a pickle: it may be a sentinel of the script.
_OBJECT = b"\x8c\x08builtins\x94\x8c\x06object\x94"


def pickled(value: object, large_from: int | None = None, is_large: bool = False) -> tuple[bytes, Promises]:
    """Return the pickle of a value and the promises in it; a large value is pickled without its large parts.

    Only a value that turns out to be large is pickled twice. `is_large` says that it is known to be.
    """
    if not is_large:
        data, promises = _pickled_once(value, None, large_from)
        if large_from is None or len(data) < large_from:
            return data, promises
    return _pickled_once(value, large_from)


def promises_in(value: object) -> list[DAGPromise[Any]]:
    """Return the promises in a value, at any depth; none if it cannot be pickled. Nothing is kept of its pickle."""
    promises = Promises()
    pickler = pickle.Pickler(_Nowhere(), PROTOCOL, buffer_callback=_ignored)
    pickler.dispatch_table = {**copyreg.dispatch_table, **promises.table}
    try:
        pickler.dump(value)
    except Exception:
        with suppress(Exception):
            return _pickled_by_value(value, None)[1]
    return promises


class _Nowhere:
    def write(self, data: object) -> int:
        return 0


def _ignored(buffer: object) -> None:
    """Leave a buffer out of the pickle."""


@stored.named("promise_value")
def _promise_value(index: int) -> NoReturn:
    """Stand in a pickle for the value of a promise, which `codec.decode` supplies."""
    raise ValueNotReadable(f"this pickle holds the promise {index} of its envelope: read it with dagorama.values.codec")


@stored.named("outcome_value")
def _outcome_value(index: int) -> NoReturn:
    """Stand in a pickle for the value of an outcome(), which may be a Failure."""
    _promise_value(index)


class Promises(list[DAGPromise[Any]]):
    """The distinct promises that one pickler has found, in that order."""

    __slots__ = ("_indices", "left_out", "outcomes", "tolerant")

    def __init__(self) -> None:
        self._indices: dict[object, int] = {}
        self.outcomes: list[Outcome[Any]] = []
        self.tolerant: set[int] = set()  #: indices of promises that were found as outcomes only
        self.left_out: OutOfBandWriter | None = None  #: the large parts that it has found

    def reduce(self, promise: DAGPromise[Any]) -> tuple[Callable[[int], object], tuple[int]]:
        key = promise._record[:2]
        index = self._indices.get(key)
        if index is None:
            index = self._indices[key] = len(self)
            self.append(promise)
        elif self.tolerant:
            self.tolerant.discard(index)
        return _promise_value, (index,)

    def reduce_outcome(self, promise: Outcome[Any]) -> tuple[Callable[[int], object], tuple[int]]:
        key = promise._record[:2]
        index = self._indices.get(key)
        if index is None:
            index = self._indices[key] = len(self)
            self.append(promise)
            self.tolerant.add(index)
        self.outcomes.append(promise)
        return _outcome_value, (index,)

    def reduce_kept(self, kept: ValueRef) -> tuple[Callable[..., object], tuple[Any, ...]]:
        if self.left_out is None:
            self.left_out = OutOfBandWriter()
        return self.left_out.reduce_kept(kept)

    @property
    def table(self) -> dict[type, Callable[[Any], tuple[Callable[..., object], tuple[Any, ...]]]]:
        return {DAGPromise: self.reduce, Outcome: self.reduce_outcome, ValueRef: self.reduce_kept}


class _Parting(pickle.Pickler):
    """A pickler that leaves out the large parts of a value."""

    left_out: OutOfBandWriter

    def persistent_id(self, found: Any, /) -> int | None:
        return self.left_out.persistent_id(found)


def _pickled_once(value: object, part_from: int | None, enough: int | None = None) -> tuple[bytes, Promises]:
    """Pickle without parts of `part_from` bytes or more; of a pickle of `enough` bytes only the length counts."""
    try:
        file, promises = BytesIO(), Promises()
        if part_from is None:
            pickler = pickle.Pickler(file, PROTOCOL)
        else:
            promises.left_out = OutOfBandWriter(part_from)
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
    # No other process finds an object of __main__ by its name: it is pickled by value, or by the script's own name.
    return _pickled_by_value(value, part_from) if may_hold_local(data) or _OBJECT in data else (data, promises)


def _parting(file: BytesIO, left_out: OutOfBandWriter) -> pickle.Pickler:
    pickler = _Parting(file, PROTOCOL, buffer_callback=left_out.buffer_callback)
    pickler.left_out = left_out
    return pickler


def _pickled_by_value(value: object, part_from: int | None) -> tuple[bytes, Promises]:
    promises = Promises()
    if part_from is not None:
        promises.left_out = OutOfBandWriter(part_from)
    return by_value.dumps(value, promises.table, promises.left_out), promises
