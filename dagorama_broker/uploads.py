"""Large values on their way in, by threads of their own: whom a slow client holds up is nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

from dagorama.api import broker_pb2 as pb
from dagorama_broker.bounds import Bounds
from dagorama_broker.errors import NotServing
from dagorama_broker.store.protocol import Store

#: Uploads that run side by side; more wait for their turn.
SIDE_BY_SIDE = 64
#: Seconds in which the next chunk has to come.
PATIENCE = 30.0


class Uploads:
    def __init__(self, store: Store, bounds: Bounds) -> None:
        self._store = store
        self._bounds = bounds
        self._threads = ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="upload")

    async def take(self, chunks: AsyncIterator[pb.ValueChunk]) -> tuple[bytes, int]:
        """Keep a value; its SHA-256 and length. Raises TooMuch, NotServing or StoreError, and then nothing is kept."""
        loop = asyncio.get_running_loop()
        upload = _Upload(chunks, self._bounds, loop)
        try:
            return await loop.run_in_executor(self._threads, self._store.put_large, upload)
        finally:
            upload.abandoned = True


class _Upload:
    """The chunks as the thread that writes them asks for them: no more than one is in memory."""

    def __init__(self, chunks: AsyncIterator[pb.ValueChunk], bounds: Bounds, loop: asyncio.AbstractEventLoop) -> None:
        self.abandoned = False
        self._chunks, self._bounds, self._loop = chunks, bounds, loop

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        while (chunk := asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()) is not None:
            size += len(chunk)
            self._bounds.check_value(size)
            yield chunk
        if self.abandoned:
            raise NotServing("the value broke off")

    async def _next(self) -> bytes | None:
        try:
            async with asyncio.timeout(PATIENCE):
                chunk = await anext(self._chunks, None)
        except TimeoutError:
            raise NotServing(f"the next part of a value did not come within {PATIENCE:.0f} s; send it again") from None
        return None if chunk is None else chunk.data
