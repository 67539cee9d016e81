"""put(): a value that many nodes need is pickled, hashed and stored once, and named after that."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

from dagorama.client.large_values import broker_values
from dagorama.errors import PromiseMisuse
from dagorama.graph.scope import LARGE_FROM, WHAT_IS_PUT, attempt_here, put_through_connection
from dagorama.models.promise import DAGPromise
from dagorama.models.value_ref import Kept
from dagorama.values.codec import decode, encode
from dagorama.values.envelope import size_of

T = TypeVar("T")


def put(value: T) -> T:
    """A reference to `value`, typed as the value: given to @dagorama calls, or returned, it costs a name each time.

    Whoever gets it there gets the plain value. The large parts of it are stored at once and sent to each worker once;
    what is small stays in the reference. The broker keeps what no node names for an hour (DAGORAMA_LARGE_GRACE): a call
    that comes later raises UnknownToBroker, and the value is to be put again. Raises NotPicklable, PromiseMisuse for a
    value with promises in it, BrokerError.
    """
    if isinstance(value, Kept):
        return value
    frame = sys._getframe(1)
    found: Any = _kept(value, (frame.f_code.co_filename, frame.f_lineno))
    typed: T = found
    return typed


def plain(value: T) -> T:
    """What put() was given, made anew, where `value` is what it has returned; else `value` itself."""
    if not isinstance(value, Kept):
        return value
    found: Any = decode(value._envelope, get_large=broker_values().get)
    typed: T = found
    return typed


def _kept(value: object, place: tuple[str, int]) -> Kept:
    attempt = attempt_here()
    if attempt is None:
        encoded = encode(value, WHAT_IS_PUT, large_from=LARGE_FROM, put_large=put_through_connection)
    else:
        encoded = attempt.keep(value)
    if encoded.promises:
        what = "a promise" if isinstance(value, DAGPromise) else "a value that holds promises"
        raise PromiseMisuse(
            f"put() was given {what} at {place[0]}:{place[1]}, whose value is not there yet and is stored once anyway: "
            "pass the promise to each call that needs it"
        )
    return Kept(encoded.envelope, type(value).__qualname__, size_of(encoded.envelope), place)
