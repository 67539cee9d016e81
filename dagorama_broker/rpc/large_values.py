"""Large values on their way in and out, by threads of their own: whom a slow client holds up is nobody else.

What has come is handed over as often as the other side is ready for more, not chunk by chunk: going from one thread to
the other costs as much as copying a megabyte.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from itertools import islice
from threading import Condition

from dagorama.api import broker_pb2 as pb
from dagorama_broker.errors import NotKnown, NotServing
from dagorama_broker.rpc.limits import Bounds, Turns
from dagorama_broker.store.protocol import Store

#: Uploads, and downloads, that run side by side at most and at least; more wait for their turn.
SIDE_BY_SIDE, LEAST = 96, 4
#: Bytes of the broker's memory for each of them: a part is read or written while the next is on its way.
EACH = 64 << 20
#: Seconds in which a client has to take the next chunk; then the call is cancelled, and its turn is another's.
READING = 60.0
#: Files of clients that are put in their place side by side.
KEEPING = 8
#: Seconds in which the next chunk has to come.
PATIENCE = 30.0
#: Bytes of one upload that may wait to be written.
WAITING = 4 << 20
#: Chunks that are read in one go.
AT_ONCE = 2


class Uploads:
    def __init__(self, store: Store, bounds: Bounds, memory: int) -> None:
        """`memory`: bytes that the broker may take."""
        self._store = store
        self._bounds = bounds
        most = max(LEAST, min(SIDE_BY_SIDE, memory // EACH))
        self._in, self._out = Turns(most), Turns(most)
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="upload")
        # Apart, so that slow clients do not hold these up.
        self._keeping = ThreadPoolExecutor(KEEPING, thread_name_prefix="keep")

    async def give(self, sha256: bytes, whose: str = "") -> AsyncGenerator[bytes, None]:
        """A value in chunks. Raises NotKnown."""
        async with self._out.one(whose):
            chunks = await asyncio.to_thread(self._store.get_large, sha256)
            if chunks is None:
                raise NotKnown(f"large value {sha256.hex()} is not here")
            async with aclosing(ahead(chunks)) as read:
                async for data in taken_in_time(read, READING):
                    yield data

    async def take(self, chunks: AsyncIterator[pb.ValueChunk], whose: str = "") -> tuple[bytes, int]:
        """Keep a value; its SHA-256 and length. Raises TooMuch, NotServing or StoreError, and then nothing is kept."""
        async with self._in.one(whose):  # nothing is read before there is a thread that takes it
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
        """Store.keep_large, which waits for the disk."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._keeping, self._store.keep_large, sha256, length, unfinished)


class _Upload:
    """Chunks from the loop, which reads them, to the thread, which writes them."""

    def __init__(self, bounds: Bounds, loop: asyncio.AbstractEventLoop) -> None:
        self._bounds, self._loop = bounds, loop
        self._changed = Condition()
        self._chunks: list[bytes] = []
        self._size = 0  # of these
        self._ended = False
        self._problem: Exception | None = None
        self._room = asyncio.Event()

    # --- in the loop ----------------------------------------------------------------------------------

    async def read(self, chunks: AsyncIterator[pb.ValueChunk]) -> None:
        """To the end; what goes wrong is for the thread to raise."""
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
        """Whoever waited for it has gone: a stream that breaks off may look like one that is complete."""
        with self._changed:
            self._ended, self._problem = True, NotServing("the value broke off")
            self._changed.notify()

    async def _next(self, chunks: AsyncIterator[pb.ValueChunk]) -> bytes | None:
        try:
            async with asyncio.timeout(PATIENCE):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise NotServing(f"the next part of a value did not come within {PATIENCE:.0f} s; send it again") from None
        return None if chunk is None else chunk.data

    async def _add(self, chunk: bytes) -> None:
        with self._changed:
            self._chunks.append(chunk)
            self._size += len(chunk)
            if self._size >= WAITING:
                self._room.clear()
            self._changed.notify()
        await self._room.wait() if self._size >= WAITING else None

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
        """What has come, waited for; nothing at the end."""
        with self._changed:
            while not self._chunks and not self._ended:
                self._changed.wait()
            if self._problem is not None:
                return []
            chunks, self._chunks = self._chunks, []
            was_full, self._size = self._size >= WAITING, 0
        if was_full:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits in it
                self._loop.call_soon_threadsafe(self._room.set)
        return chunks


async def ahead(chunks: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Chunks that threads read, the next ones while the last are being sent."""
    reading = asyncio.create_task(asyncio.to_thread(_some, chunks))
    try:
        while some := await reading:
            reading = asyncio.create_task(asyncio.to_thread(_some, chunks))
            for chunk in some:
                yield chunk
    finally:
        with suppress(Exception, asyncio.CancelledError):
            await reading


async def taken_in_time(parts: AsyncIterator[bytes], seconds: float) -> AsyncGenerator[bytes, None]:
    """The same parts. The call that takes them is cancelled if it keeps one for longer than `seconds`."""
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
