"""Large values of a broker that keeps them in an object store: files of the spool to and from URLs that it signs.

The broker is asked for a new URL for each try, so that none expires while the store is away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, TypeVar, cast

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama.client.chunks import DEADLINE, VALUE_LIMIT, transfer_deadline
from dagorama.client.object_http import ObjectMissing, TransferFailed, download, upload
from dagorama.settings.values import is_direct, values_patience

if TYPE_CHECKING:
    from dagorama.api.broker_pb2_grpc import BrokerAsyncStub

T = TypeVar("T")

#: Statuses of a broker that does not have these calls, or of a token that does not allow them.
_LACKING = ("UNIMPLEMENTED", "PERMISSION_DENIED")
#: Whole downloads with other bytes, or answers that there is no such object, after which the value counts as lost.
MOST_BAD = 3
#: Seconds that the broker may take to compare an object with its hash.
COMPARING = transfer_deadline(VALUE_LIMIT)


class ValueLost(Exception):
    """The object store has no object, or one with other bytes, for a value that the broker has a row of."""


class Patience:
    """How long an object store has not answered one transfer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def note(self, is_away: bool) -> None:
        """Note that the transfer failed, and whether the object store was the reason."""
        self._since = (self._since or time.monotonic()) if is_away else None

    @property
    def is_over(self) -> bool:
        """Whether the store has not answered for DAGORAMA_VALUES_PATIENCE."""
        return self._since is not None and time.monotonic() - self._since >= self._seconds


class ObjectTransfers:
    """Transfers between the spool and an object store, for as long as the broker names URLs."""

    def __init__(self, stub: BrokerAsyncStub) -> None:
        self._stub = stub
        self._has_keep = self._has_find = is_direct()  # as far as is known, the broker has these calls
        self.patience = values_patience()  #: seconds for which a store that does not answer is tried
        self._bad: dict[bytes, int] = {}  # unusable answers by value

    async def send(self, digest: bytes, path: Path) -> bool | None:
        """Make sure that the broker has a value of the spool; return True if it has.

        False: it must be sent with PutValue. None: the broker does not know this way. Raises TransferFailed and
        AioRpcError.
        """
        if not self._has_keep:
            return None
        length = 0
        with suppress(FileNotFoundError):
            length = path.stat().st_size
        try:
            reply = await self._keep(digest, length)
        except grpc.aio.AioRpcError as error:
            self._has_keep = error.code().name not in _LACKING
            if self._has_keep:
                raise
            return None
        if reply.kept or not length:  # a value that is not in the spool was sent before
            return True
        if not reply.url:
            return False
        with suppress(FileNotFoundError):  # removed meanwhile, as it is not needed any longer
            await _in_thread(partial(_upload, reply, path, length))
        if not (await self._keep(digest, length, reply.object)).kept:
            raise TransferFailed("the uploaded object is incomplete, or another broker leads now")
        return True

    async def _keep(self, digest: bytes, length: int, name: str = "") -> pb.KeepValueReply:
        request = pb.KeepValueRequest(sha256=digest, length=length, object=name)
        return await self._stub.KeepValue(request, timeout=DEADLINE)

    async def fetch(self, digest: bytes, file: Path) -> int | None:
        """Write a value to a file and return its length; None if it must be read with GetValue.

        Raises TransferFailed, AioRpcError, and ValueLost if the store does not have it.
        """
        if not self._has_find:
            return None
        try:
            reply = await self._stub.FindValue(pb.FindValueRequest(sha256=digest), timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            self._has_find = error.code().name not in _LACKING
            if self._has_find:
                raise
            return None
        if not reply.url:
            self._has_find = not reply.never
            return None
        try:
            found = await _in_thread(partial(_download, reply, file))
        except ObjectMissing as missing:
            self._count_bad(digest, str(missing))
            raise
        if found != digest:
            # The broker compares, and answers NOT_FOUND if that is so.
            await self._stub.FindValue(pb.FindValueRequest(sha256=digest, wrong=reply.object), timeout=COMPARING)
            self._count_bad(digest, "the object does not match its hash")
            raise TransferFailed("the object does not match its hash")
        self._bad.pop(digest, None)
        return reply.length

    def _count_bad(self, digest: bytes, problem: str) -> None:
        """Raise ValueLost if the store has given an unusable answer several times."""
        self._bad[digest] = count = self._bad.get(digest, 0) + 1
        if count >= MOST_BAD:
            del self._bad[digest]
            raise ValueLost(problem)


async def _in_thread(call: Callable[[], T]) -> T:
    """Make a call in a thread of its own, which does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if not done.done():
            done.set_result(cast(T, result)) if error is None else done.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = call()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed, and nothing waits in it
            loop.call_soon_threadsafe(finish, result, error)

    Thread(target=run, daemon=True, name="value").start()
    return await done


def _upload(reply: pb.KeepValueReply, path: Path, length: int) -> None:
    with path.open("rb") as file:
        upload(reply.url, reply.headers, file, length)


def _download(reply: pb.FindValueReply, path: Path) -> bytes:
    """Write an object to a file; return the SHA-256 of what was written."""
    seen = sha256()

    def take(block: bytes) -> None:
        file.write(block)
        seen.update(block)

    try:
        with path.open("wb") as file:
            download(reply.url, reply.headers, reply.length, take)
    except OSError as error:
        raise TransferFailed(f"the worker cannot write to {path.parent}: {error.strerror or error}") from None
    return seen.digest()
