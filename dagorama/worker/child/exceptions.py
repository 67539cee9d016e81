"""Exceptions as they travel: pickled and signed, if they can be pickled within a bound."""

import pickle
from collections.abc import Callable

from dagorama.user_code.modules import may_hold_local
from dagorama.values import by_value
from dagorama.worker.failures import attempted

EXCEPTION_BYTES = 256 << 10


def signed_exception(error: BaseException, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the signed envelope of an exception; empty if it cannot be pickled or is too large. Never raises."""
    return attempted(lambda: _signed(error, sign), b"")


def _signed(error: BaseException, sign: Callable[[bytes], bytes]) -> bytes:
    data = _pickled(error)
    return sign(data) if data else b""


def _pickled(error: BaseException) -> bytes:
    try:
        data = pickle.dumps(error, 5)
    except Exception:  # of a class that is not found under its name
        data = by_value.dumps(error)
    else:
        if may_hold_local(data):
            data = by_value.dumps(error)
    return data if len(data) <= EXCEPTION_BYTES else b""
