"""Uploads and downloads of large values, in their own threads, so that a slow client delays no one else.

The event loop and a thread pass each other all chunks that have arrived, not one by one: switching between threads
costs as much as copying a megabyte.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from itertools import islice
from struct import Struct
from threading import Condition
from typing import TypeVar

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import COUNT_LAYOUT, LARGE, PART_LAYOUT, PARTS
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.value_objects import ValueObjects
from dagorama_broker.errors import NotFound, Unavailable
from dagorama_broker.rpc.fields import sha256_bytes
from dagorama_broker.rpc.limits import RequestLimits, Turns

_PART, _COUNT = Struct(PART_LAYOUT), Struct(COUNT_LAYOUT)
T = TypeVar("T")

#: The most uploads, and downloads, at the same time, and the least number of that limit; others wait for their turn.
SIDE_BY_SIDE, LEAST = 96, 4
#: Bytes of the broker's memory for each of them: one part is read or written while the next is sent.
EACH = 64 << 20
#: Seconds that a client has to take the next chunk; then the call is cancelled and releases its turn.
READING = 60.0
#: Files of clients that are imported at the same time.
KEEPING = 8
#: Seconds that a client has to send the next chunk.
PATIENCE = 30.0
#: Bytes of one upload that may wait to be written.
WAITING = 4 << 20
#: Chunks that are read together.
AT_ONCE = 2


class ValueTransfers:
    """Transfers large values between clients and the store, or an object store."""

    def __init__(self, broker: Broker, bounds: RequestLimits, memory: int) -> None:
        """`memory`: bytes that the broker may use."""
        self._store = broker.store
        objects = broker.store.objects
        self._objects = None if objects is None else ValueObjects(broker.commits, objects)
        self._upload = None if objects is None else objects.upload
        self._bounds = bounds
        most = max(LEAST, min(SIDE_BY_SIDE, memory // EACH))
        self._in, self._out = Turns(most), Turns(most)
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="upload")
        # A separate pool, so that slow clients do not delay imports.
        self._keeping = ThreadPoolExecutor(KEEPING, thread_name_prefix="keep")

    async def give(self, sha256: bytes, whose: str = "") -> AsyncGenerator[bytes, None]:
        """Yield a value in chunks. Raise NotFound if it is not stored."""
        async with self._out.one(whose):
            read = self._store.get_large if self._objects is None else self._objects.read
            chunks = await asyncio.to_thread(read, sha256)
            if chunks is None:
                raise NotFound(f"large value {sha256.hex()} is not stored here")
            async with aclosing(ahead(chunks)) as parts:
                async for data in taken_in_time(parts, READING):
                    yield data

    async def take(self, chunks: AsyncIterator[pb.ValueChunk], whose: str = "") -> tuple[bytes, int]:
        """Store a value; return its SHA-256 and length.

        If this raises ResourceExhausted, Unavailable or StoreError, nothing is stored.
        """
        async with self._in.one(whose):  # do not read before there is a thread that writes
            if self._objects is None or self._upload is None:
                return await self._take(chunks, self._store.put_large)
            row = await self._take(chunks, self._upload)
            await self._objects.name(row)
            return row.sha256, row.length

    async def _take(self, chunks: AsyncIterator[pb.ValueChunk], write: Callable[[Iterable[bytes]], T]) -> T:
        loop = asyncio.get_running_loop()
        upload = _Upload(self._bounds, loop)
        writing = loop.run_in_executor(self._threads, write, upload)
        reading = asyncio.create_task(upload.read(chunks))
        try:
            return await writing
        finally:
            upload.abandon()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def keep(self, sha256: bytes, length: int, unfinished: str) -> bool:
        """Return whether a value is kept, see `Store.keep_large`, which waits for the disk, in a thread."""
        if self._objects is not None:
            return await self._objects.keep(sha256, length) is None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._keeping, self._store.keep_large, sha256, length, unfinished)

    async def place(self, request: pb.KeepValueRequest) -> pb.KeepValueReply:
        """Return whether a value is kept, and otherwise where to send it. Raise ResourceExhausted or ValuesAway."""
        sha256 = sha256_bytes(request.sha256)
        self._bounds.check_value(request.length)
        if self._objects is None:
            return pb.KeepValueReply(kept=await self.keep(sha256, request.length, ""))
        placing = await self._objects.keep(sha256, request.length, request.object)
        if placing is None:
            return pb.KeepValueReply(kept=True)
        return pb.KeepValueReply(url=placing.url, headers=dict(placing.headers), object=placing.object)

    async def find(self, request: pb.FindValueRequest) -> pb.FindValueReply:
        """Return where to read a value. Raise NotFound."""
        sha256 = sha256_bytes(request.sha256)
        found = None if self._objects is None else await self._objects.find(sha256, request.wrong)
        if found is None:
            return pb.FindValueReply(never=True)
        placing, length = found
        return pb.FindValueReply(url=placing.url, headers=dict(placing.headers), length=length, object=placing.object)


class _Upload:
    """Passes chunks from the event loop, which reads them, to a thread, which writes them."""

    def __init__(self, bounds: RequestLimits, loop: asyncio.AbstractEventLoop) -> None:
        self._bounds, self._loop = bounds, loop
        self._changed = Condition()
        self._chunks: list[bytes] = []
        self._size = 0  # of these
        self._ended = False
        self._problem: Exception | None = None
        self._room = asyncio.Event()

    # --- in the loop ----------------------------------------------------------------------------------

    async def read(self, chunks: AsyncIterator[pb.ValueChunk]) -> None:
        """Read all chunks; an exception is raised in the thread."""
        size = 0
        try:
            while (chunk := await self._next(chunks)) is not None:
                size += len(chunk)
                self._bounds.check_value(size)
                await self._add(chunk)
            self._end(None)
        except Exception as problem:
            self._end(problem)

    def abandon(self) -> None:
        """Make the thread fail: an interrupted stream may look like a complete one."""
        with self._changed:
            self._ended, self._problem = True, Unavailable("the upload was interrupted")
            self._changed.notify()

    async def _next(self, chunks: AsyncIterator[pb.ValueChunk]) -> bytes | None:
        try:
            async with asyncio.timeout(PATIENCE):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise Unavailable(
                f"the next chunk did not arrive within {PATIENCE:.0f} s; upload the value again"
            ) from None
        return None if chunk is None else chunk.data

    async def _add(self, chunk: bytes) -> None:
        with self._changed:
            self._chunks.append(chunk)
            self._size += len(chunk)
            is_full = self._size >= WAITING
            if is_full:
                self._room.clear()
            self._changed.notify()
        if is_full:
            await self._room.wait()

    def _end(self, problem: Exception | None) -> None:
        with self._changed:
            if not self._ended:
                self._ended, self._problem = True, problem
            self._changed.notify()

    # --- in the thread --------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        while chunks := self._take():
            yield from chunks
        if self._problem is not None:
            raise self._problem

    def _take(self) -> list[bytes]:
        """Wait for chunks and return them; an empty list at the end."""
        with self._changed:
            while not self._chunks and not self._ended:
                self._changed.wait()
            if self._problem is not None:
                return []
            chunks, self._chunks = self._chunks, []
            was_full, self._size = self._size >= WAITING, 0
        if was_full:
            with suppress(RuntimeError):  # the loop is closed, and nothing waits in it
                self._loop.call_soon_threadsafe(self._room.set)
        return chunks


async def ahead(chunks: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield chunks that threads read, the next ones while the last ones are being sent."""
    reading = asyncio.create_task(asyncio.to_thread(_some, chunks))
    try:
        while some := await reading:
            reading = asyncio.create_task(asyncio.to_thread(_some, chunks))
            for chunk in some:
                yield chunk
    finally:
        with suppress(Exception, asyncio.CancelledError):
            await reading


async def taken_in_time(parts: AsyncIterator[T], seconds: float) -> AsyncGenerator[T, None]:
    """Yield the parts. Cancel the current task if its consumer takes longer than `seconds` for one."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    async for part in parts:
        late = loop.call_later(seconds, task.cancel)
        try:
            yield part
        finally:
            late.cancel()


def _some(chunks: Iterator[bytes]) -> list[bytes]:
    return list(islice(chunks, AT_ONCE))


def large_in(envelope: bytes) -> list[bytes]:
    """Return the SHA-256 of large values that an envelope names; a malformed envelope names none.

    docs/reference/envelopes.md has the layout.
    """
    names: list[bytes] = []
    end = len(envelope)
    if envelope[1] & PARTS:
        end -= _COUNT.size
        if end < 2:
            return names
        start = end - _PART.size * _COUNT.unpack_from(envelope, end)[0]
        if not 2 <= start < end:
            return names
        names += [digest for _, digest, _ in _PART.iter_unpack(envelope[start:end])]
        end = start
    if envelope[1] & LARGE and end > 33:
        names.append(envelope[end - 32 : end])
    return names
