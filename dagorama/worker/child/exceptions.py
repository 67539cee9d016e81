"""An exception as it travels: text that is always valid and bounded, and the exception itself where it can be pickled.

Nothing here raises, whatever the exception does when it is printed or pickled.
"""

import os
import pickle
from collections.abc import Callable
from traceback import TracebackException
from types import TracebackType
from typing import TypeVar

import dagorama
from dagorama.api import broker_pb2 as pb
from dagorama.user_code.modules import may_hold_local
from dagorama.values import pickling

T = TypeVar("T")

NAME_BYTES = 1000
TRACEBACK_BYTES = 64 << 10
MESSAGE_BYTES = 16 << 10
EXCEPTION_BYTES = 256 << 10

_OURS = os.path.dirname(dagorama.__file__) + os.sep


def describe(
    error: BaseException, node: int, attempt: int, microseconds: int, sign: Callable[[bytes], bytes] | None = None
) -> pb.Failure:
    """`sign` makes a signed envelope of a pickle; without it the exception itself does not travel."""
    return pb.Failure(
        node=node,
        attempt=attempt,
        type=bounded(_attempted(lambda: _name(type(error)), "unknown"), NAME_BYTES),
        message=bounded(_attempted(lambda: str(error), "<its str() failed>"), MESSAGE_BYTES),
        traceback=bounded(_attempted(lambda: _traceback(error), ""), TRACEBACK_BYTES),
        exception=_attempted(lambda: _signed(error, sign), b"") if sign is not None else b"",
        microseconds=microseconds,
    )


def overrun(seconds: float) -> TimeoutError:
    """Of a run that was stopped at its timeout."""
    return TimeoutError(f"it ran for longer than its timeout of {seconds:g} second{'s' * (seconds != 1)}")


def bounded(text: str, limit: int) -> str:
    """Valid UTF-8 without NUL, of at most about `limit` bytes: what is too much goes from the middle."""
    clean = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace")
    if len(clean) <= limit:
        return clean.decode()
    half = limit // 2
    head, tail = clean[:half].decode(errors="ignore"), clean[-half:].decode(errors="ignore")
    return f"{head}\n... {len(clean) - 2 * half} bytes left out ...\n{tail}"


def _attempted(action: Callable[[], T], otherwise: T) -> T:
    try:
        return action()
    except BaseException:  # user code runs in there
        return otherwise


def _name(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _traceback(error: BaseException) -> str:
    """As Python prints it, from the user's first frame on."""
    return "".join(TracebackException(type(error), error, user_frames(error.__traceback__), compact=True).format())


def user_frames(trace: TracebackType | None) -> TracebackType | None:
    """Without our own frames above the user's; None if there are no others."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


def _signed(error: BaseException, sign: Callable[[bytes], bytes]) -> bytes:
    data = _pickled(error)
    return sign(data) if data else b""


def _pickled(error: BaseException) -> bytes:
    try:
        data = pickle.dumps(error, 5)
    except Exception:  # of a class that is not found under its name
        data = pickling.dumps(error)
    else:
        if may_hold_local(data):
            data = pickling.dumps(error)
    return data if len(data) <= EXCEPTION_BYTES else b""
