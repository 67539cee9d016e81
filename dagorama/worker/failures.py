"""Describe failures for the broker with valid and bounded texts, even if printing the exception raises errors.

Supervisor and child both import this module, so it imports neither, and nothing that pickles.
"""

import os
from collections.abc import Callable
from traceback import TracebackException
from types import TracebackType
from typing import TypeVar

from dagorama import errors
from dagorama.api import broker_pb2 as pb

T = TypeVar("T")

NAME_BYTES = 1000
TRACEBACK_BYTES = 64 << 10
MESSAGE_BYTES = 16 << 10

OURS = os.path.dirname(errors.__file__) + os.sep  #: the beginning of the paths of our own files


def describe(error: BaseException, node: int, attempt: int, microseconds: int, exception: bytes = b"") -> pb.Failure:
    """Describe how an attempt failed. `exception` is the signed envelope of the exception, if it can be sent."""
    return pb.Failure(
        node=node,
        attempt=attempt,
        type=truncate(attempted(lambda: _name(type(error)), "unknown"), NAME_BYTES),
        message=truncate(attempted(lambda: str(error), "<its str() failed>"), MESSAGE_BYTES),
        traceback=truncate(attempted(lambda: _traceback(error), ""), TRACEBACK_BYTES),
        exception=exception,
        microseconds=microseconds,
    )


def timeout_error(seconds: float) -> TimeoutError:
    """Return the error of a run that was stopped at its timeout."""
    return TimeoutError(f"it ran for longer than its timeout of {seconds:g} second{'s' * (seconds != 1)}")


def truncate(text: str, limit: int) -> str:
    """Return the text as valid UTF-8 without NUL, cut in the middle if it is longer than about `limit` bytes."""
    clean = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace")
    if len(clean) <= limit:
        return clean.decode()
    half = limit // 2
    head, tail = clean[:half].decode(errors="ignore"), clean[-half:].decode(errors="ignore")
    return f"{head}\n... {len(clean) - 2 * half} bytes omitted ...\n{tail}"


def attempted(action: Callable[[], T], otherwise: T) -> T:
    """Return the result of user code, or `otherwise` if it raises anything."""
    try:
        return action()
    except BaseException:  # user code may raise anything
        return otherwise


def _name(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _traceback(error: BaseException) -> str:
    """Return the traceback as Python prints it, from the first frame of user code on."""
    return "".join(TracebackException(type(error), error, user_frames(error.__traceback__), compact=True).format())


def user_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without dagorama's frames before user code; None if there are no other frames."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(OURS):
        trace = trace.tb_next
    return trace
