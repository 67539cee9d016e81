"""Capture what user code prints and logs, in the log of the node that does so; the output of the worker stays the same.

A thread belongs to the node that has started it, or else to the only running node. Text that belongs to no node, or to
one of several, is not captured. The rule: user code finds streams, loggers and handlers that behave as they did.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from dagorama.api import broker_pb2 as pb
from dagorama.context import Log, current_run, known_run
from dagorama.logging import NAME, get_logger
from dagorama.settings import captured_log_level
from dagorama.worker.attempt_log import encoded
from dagorama.worker.child.forks import forget_in_forks

_lock = threading.Lock()
_holders = 0  # how many workers of this process need the capture
_here = threading.local()  # .is_logging: a handler of the module logging writes
_logging_threads = False  # some thread has logged, so that `_here` must be looked at


class _Switch:
    """Turns the capture off in forks of a worker: nothing that they print can be sent."""

    is_on = True

    def forget(self) -> None:
        self.is_on = False


_switch = _Switch()
forget_in_forks(_switch)


def _log() -> Log | None:
    """Return the log of the run that writes here; None if it is not captured."""
    if not _switch.is_on or (_logging_threads and getattr(_here, "is_logging", False)):
        return None
    run = current_run.get() or known_run()
    return None if run is None else run.log or run.opened_log()


# --- streams ---------------------------------------------------------------------------------------

_has_warned = False


def _is_logged(error: OSError) -> bool:
    """Return whether a node's log has what the output of the worker does not take; warn the first time.

    The output may be a pipe whose reader is gone, or a file on a full disk: each node that prints would fail.
    """
    global _has_warned
    if _log() is None:
        return False
    if not _has_warned:
        _has_warned = True
        get_logger().warning(
            "the output of this worker cannot be written, nodes continue without it: %s", error.strerror
        )
    return True


class Tee:
    """A text stream that passes everything on to another one."""

    def __init__(self, through: Any, source: int, descriptor: int | None = None) -> None:
        """`descriptor` is the one for programs to write to, if it is not the stream's own."""
        self.through = through
        self._source = source
        self._descriptor = descriptor
        self._buffer: TeeBuffer | None = None

    def write(self, text: str) -> int:
        written = _write(self.through, text)
        if text and (log := _log()) is not None:
            log.write(self._source, text)
        return written

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        _flush(self.through)

    @property
    def buffer(self) -> TeeBuffer:
        buffer = self.through.buffer
        if self._buffer is None or self._buffer.through is not buffer:
            self._buffer = TeeBuffer(buffer, self._source)
        return self._buffer

    def fileno(self) -> int:
        found: int = self.through.fileno() if self._descriptor is None else self._descriptor
        return found

    def __reduce__(self) -> tuple[object, ...]:
        """Be pickled by reference as the stream that it stands for, by cloudpickle."""
        return getattr, (sys, "stderr" if self._source == pb.STDERR else "stdout")

    def __enter__(self) -> Tee:
        return self

    def __exit__(self, *_: object) -> None:
        self.through.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.through, name)


class TeeBuffer:
    """The binary stream below a Tee."""

    def __init__(self, through: Any, source: int) -> None:
        self.through = through
        self._source = source

    def write(self, data: bytes | bytearray | memoryview) -> int:
        written = _write(self.through, data)
        if len(data) and (log := _log()) is not None:
            log.write(self._source, bytes(data))
        return written

    def flush(self) -> None:
        _flush(self.through)

    def writelines(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.through, name)


def _write(stream: Any, data: str | bytes | bytearray | memoryview) -> int:
    """Write to the output of the worker; return what it takes, or the whole length if only a node's log takes it."""
    try:
        written: int = stream.write(data)
    except OSError as error:
        if not _is_logged(error):
            raise
        return len(data)
    return written


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except OSError as error:
        if not _is_logged(error):
            raise


io.TextIOBase.register(Tee)
io.BufferedIOBase.register(TeeBuffer)


# --- logging ---------------------------------------------------------------------------------------

_FORMATTER = logging.Formatter()
_call_handlers = logging.Logger.callHandlers
_is_wrapped = False  # another library has wrapped our function, and calls it for good


@wraps(logging.Logger.callHandlers)
def _capturing_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
    """Call the handlers, and capture the record instead of what handlers write to the captured streams."""
    global _logging_threads
    was_logging = getattr(_here, "is_logging", False)
    _here.is_logging = True
    _logging_threads = True
    try:
        _call_handlers(self, record)
    finally:
        _here.is_logging = was_logging
        if not was_logging and record.levelno >= _level and record.name != NAME:
            _add(record)


def _add(record: logging.LogRecord) -> None:
    if (log := _log()) is not None:
        log.add(record.levelno, record.name, encoded(_text_of(record)))


def _text_of(record: logging.LogRecord) -> str:
    try:
        return _FORMATTER.format(record)
    except Exception as error:  # the arguments do not fit the message; handlers report that on stderr
        return f"{record.msg!r} % {record.args!r} ({type(error).__name__}: {error})"


_level = logging.INFO


# --- installing ------------------------------------------------------------------------------------


def install(has_pipes: bool = False) -> Callable[[], None]:
    """Capture what nodes of this process print and log, until the returned function is called.

    With `has_pipes` the descriptors 1 and 2 are captured by the supervisor.
    """
    global _holders, _level
    with _lock:
        _holders += 1
        if _holders == 1:
            _switch.is_on = True  # the fork server forks children too
            _level = logging.getLevelNamesMapping()[captured_log_level()]
            _replace_streams(has_pipes)
            _wrap_handlers()
    return _uninstall


@contextmanager
def installed(is_on: bool) -> Iterator[None]:
    """Capture within the context, if `is_on`."""
    undo = install() if is_on else lambda: None
    try:
        yield
    finally:
        undo()


def _replace_streams(has_pipes: bool) -> None:
    for name, source, descriptor in (("stdout", pb.STDOUT, 1), ("stderr", pb.STDERR, 2)):
        stream = getattr(sys, name)
        if stream is not None:
            setattr(sys, name, Tee(stream, source, descriptor if has_pipes else None))


def _wrap_handlers() -> None:
    global _call_handlers
    if not _is_wrapped:
        _call_handlers = logging.Logger.callHandlers
        logging.Logger.callHandlers = _capturing_handlers  # type: ignore[method-assign]  # all loggers call it


def _unwrap_handlers() -> None:
    global _is_wrapped
    if logging.Logger.callHandlers is _capturing_handlers:
        logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign]  # as it was
        _is_wrapped = False
    else:
        _is_wrapped = True


def _uninstall() -> None:
    global _holders
    with _lock:
        _holders -= 1
        if _holders:
            return
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if isinstance(stream, Tee):  # otherwise user code has replaced it
                setattr(sys, name, stream.through)
        _unwrap_handlers()
