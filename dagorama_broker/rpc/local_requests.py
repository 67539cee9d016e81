"""The requests of a call over the local transport: queued for its handler, or handed over as soon as they are read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context

from dagorama_broker.rpc.handlers import Unread

#: Bytes of unprocessed requests of one connection from which no more are read.
UNREAD = 256 << 10
#: Bytes of a request that may be handed over as soon as it is read: the loop does nothing else meanwhile.
DIRECT = 64 << 10


class LocalRequests:
    """The requests of a call, as gRPC would give them to a handler."""

    def __init__(self, parse: Callable[[bytes], object], transport: asyncio.Transport) -> None:
        self._parse = parse
        self._transport = transport
        self._unread: deque[tuple[Unread, int]] = deque()
        self._size = 0
        self._is_over = False
        self._arrived = asyncio.Event()
        self._is_awaited = False  # the handler has taken all that arrived, and waits for more
        self._take: Callable[[Unread], bool] | None = None
        self._context = Context()
        self._error: Exception | None = None
        self.is_paused = False

    def hand_to(self, take: Callable[[Unread], bool]) -> None:
        """Hand small requests to `take`, in the present context, while the handler waits for the next one.

        The switch to the task of the handler takes as long as most requests. If `take` returns False, the handler gets
        the request from the iterator, and what it raises is raised there.
        """
        self._take, self._context = take, copy_context()

    def put(self, body: bytes) -> None:
        request = Unread(body, self._parse)
        if self._is_awaited and not self._unread and len(body) <= DIRECT and self._is_taken(request):
            return
        self._unread.append((request, len(body)))
        self._size += len(body)
        self._arrived.set()
        if self._size >= UNREAD and not self.is_paused:
            self.is_paused = True
            self._transport.pause_reading()

    def _is_taken(self, request: Unread) -> bool:
        if self._take is None or self._error is not None:
            return False
        try:
            return self._context.run(self._take, request)
        except Exception as error:
            self._error = error
            self._arrived.set()
            return True

    def end(self) -> None:
        self._is_over = True
        self._arrived.set()

    def __aiter__(self) -> LocalRequests:
        return self

    async def __anext__(self) -> Unread:
        while not self._unread:
            if self._error is not None:
                raise self._error
            if self._is_over:
                raise StopAsyncIteration
            self._arrived.clear()
            self._is_awaited = True
            try:
                await self._arrived.wait()
            finally:
                self._is_awaited = False
        request, size = self._unread.popleft()
        self._size -= size
        if self.is_paused and self._size < UNREAD:
            self.is_paused = False
            self._transport.resume_reading()
        return request
