"""Uploads and downloads of large values, in their own threads, so that a slow client delays no one else.

The event loop and a thread pass each other all chunks that have arrived, not one by one: switching between threads
costs as much as copying a megabyte.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from itertools import islice
from threading import Condition
from typing import TypeVar

from dagorama.api import broker_pb2 as pb
from dagorama_broker.errors import NotFound, Unavailable
from dagorama_broker.rpc.limits import RequestLimits, Turns
from dagorama_broker.store.protocol import Store

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
    """Transfers large values between clients and the store."""

    def __init__(self, store: Store, bounds: RequestLimits, memory: int) -> None:
        """`memory`: bytes that the broker may use."""
        self._store = store
        self._bounds = bounds
        most = max(LEAST, min(SIDE_BY_SIDE, memory // EACH))
        self._in, self._out = Turns(most), Turns(most)
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="upload")
        # A separate pool, so that slow clients do not delay imports.
        self._keeping = ThreadPoolExecutor(KEEPING, thread_name_prefix="keep")

    async def give(self, sha256: bytes, whose: str = "") -> AsyncGenerator[bytes, None]:
        """Yield a value in chunks. Raise NotFound if it is not stored."""
        async with self._out.one(whose):
            chunks = await asyncio.to_thread(self._store.get_large, sha256)
            if chunks is None:
                raise NotFound(f"large value {sha256.hex()} is not stored here")
            async with aclosing(ahead(chunks)) as read:
                async for data in taken_in_time(read, READING):
                    yield data

    async def take(self, chunks: AsyncIterator[pb.ValueChunk], whose: str = "") -> tuple[bytes, int]:
        """Store a value; return its SHA-256 and length.

        If this raises ResourceExhausted, Unavailable or StoreError, nothing is stored.
        """
        async with self._in.one(whose):  # do not read before there is a thread that writes
            return await self._take(chunks)

    async def _take(self, chunks: AsyncIterator[pb.ValueChunk]) -> tuple[bytes, int]:
        loop = asyncio.get_running_loop()
        upload = _Upload(self._bounds, loop)
        writing = loop.run_in_executor(self._threads, self._store.put_large, upload)
        reading = asyncio.create_task(upload.read(chunks))
        try:
            return await writing
        finally:
            upload.abandon()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def keep(self, sha256: bytes, length: int, unfinished: str) -> bool:
        """Call `Store.keep_large` in a thread, because it waits for the disk."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._keeping, self._store.keep_large, sha256, length, unfinished)


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
