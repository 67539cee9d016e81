"""The progress of instances whose pages are open: one stream for each, whose latest message the whole page uses."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from dagorama.api import broker_pb2 as pb
from dagorama.errors import BrokerError
from dagorama_dashboard.broker import Viewer

#: Seconds after its last use at which a stream is closed.
UNUSED = 10.0


class _Stream:
    """The latest progress of one instance."""

    def __init__(self, viewer: Viewer, id: bytes) -> None:
        self._viewer, self._id = viewer, id
        self._loop = asyncio.get_running_loop()
        self._latest: asyncio.Future[pb.Progress] = self._loop.create_future()
        self._used_at = self._loop.time()
        self.task = asyncio.create_task(self._follow())
        self._loop.call_later(UNUSED, self._end_if_unused)

    async def latest(self) -> pb.Progress:
        self._used_at = self._loop.time()
        return await asyncio.shield(self._latest)

    def _end_if_unused(self) -> None:
        left = self._used_at + UNUSED - self._loop.time()
        if left <= 0:
            self.task.cancel()
        elif not self.task.done():
            self._loop.call_later(left, self._end_if_unused)

    async def _follow(self) -> None:
        try:
            async with aclosing(self._viewer.follow("Watch", pb.WatchRequest(instance=self._id))) as states:
                async for progress in states:
                    self._next().set_result(progress)
        except BrokerError as error:
            failed = self._next()
            failed.set_exception(error)
            failed.exception()  # it is no fault if nothing asks for it

    def _next(self) -> asyncio.Future[pb.Progress]:
        if self._latest.done():
            self._latest = self._loop.create_future()
        return self._latest


class ProgressStreams:
    """The streams that are open, for each person separately."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, bytes], _Stream] = {}

    async def latest(self, viewer: Viewer, id: bytes) -> pb.Progress:
        """Return the latest progress of an instance. Raises BrokerError."""
        key = viewer.token, id
        stream = self._streams.get(key)
        if stream is None or stream.task.done():
            self._drop_ended()
            stream = self._streams[key] = _Stream(viewer, id)
        return await stream.latest()

    def _drop_ended(self) -> None:
        for key in [key for key, stream in self._streams.items() if stream.task.done()]:
            del self._streams[key]

    def close(self) -> None:
        """End all streams."""
        for stream in self._streams.values():
            stream.task.cancel()
