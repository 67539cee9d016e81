"""Follows the nodes of instances whose drawings are open, once for all pages of a person."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial

from dagorama.api import broker_pb2 as pb
from dagorama.errors import BrokerError
from dagorama_dashboard.broker import Viewer
from dagorama_dashboard.following.columns import MOST_NODES, Columns, Shifted

#: Seconds that the broker has for a map, and for which a map counts as new.
MAP_SECONDS, FRESH = 30.0, 2.0
#: Seconds after which a broken stream is opened again, and after its last use one is closed.
AGAIN, UNUSED = 1.0, 10.0


async def read_columns(viewer: Viewer, id: bytes, columns: Columns) -> Columns:
    """Add the nodes after the known ones, and return the columns, or new ones if the ordinals have shifted."""
    while True:
        try:
            return await _read_rest(viewer, id, columns)
        except Shifted:
            columns = Columns(columns.created)


async def _read_rest(viewer: Viewer, id: bytes, columns: Columns) -> Columns:
    request = pb.GetMapRequest(instance=id, after=columns.last, sources=True, limit=MOST_NODES - columns.count)
    if request.limit:
        async with aclosing(viewer.follow("GetMap", request, MAP_SECONDS)) as messages:
            async for message in messages:
                columns.add(message)
    return columns


class Listener:
    """The changes that one page was not told yet."""

    def __init__(self, is_over: bool) -> None:
        self.states: dict[int, int] = {}  #: by ordinal
        self.is_all = False  #: the page must load the whole map again
        self.error: BrokerError | None = None
        self.is_over = is_over
        self.news = asyncio.Event()
        if is_over:
            self.news.set()

    def take(self) -> tuple[dict[int, int], bool]:
        states, self.states = self.states, {}
        is_all, self.is_all = self.is_all, False
        if not self.is_over:
            self.news.clear()
        return states, is_all


class Followed:
    """An instance whose changes are followed, until no page has used it for a while."""

    def __init__(self, viewer: Viewer, info: pb.InstanceInfo, forget: Callable[[Followed], None]) -> None:
        self._viewer, self._id, self._created = viewer, info.instance, info.created
        self._had_ended = info.ended
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._used_at = self._loop.time()
        self._listeners: set[Listener] = set()
        self.columns = Columns(info.created)
        self._read_at: float | None = None  # None: it must be read again
        self._reading = asyncio.Lock()
        self._is_begun = asyncio.Event()
        self._is_over = False
        self._task = asyncio.create_task(self._follow())
        self._loop.call_later(UNUSED, self._end_if_unused)

    async def map(self, *, fresh: bool) -> Columns:
        """Return the columns; if `fresh`, with times that are at most `FRESH` seconds old. Raises BrokerError."""
        self._used_at = self._loop.time()
        await self._is_begun.wait()
        async with self._reading:
            is_old = fresh and not self._is_over and self._loop.time() - (self._read_at or 0.0) > FRESH
            if self._read_at is None or is_old:
                self.columns = await read_columns(self._viewer, self._id, Columns(self._created))
                self._read_at = self._loop.time()
            return self.columns

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """Yield what is told of each change within the context."""
        listener = Listener(self._is_over)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
            self._used_at = self._loop.time()

    def close(self) -> None:
        self._task.cancel()

    def _end_if_unused(self) -> None:
        left = self._used_at + UNUSED - self._loop.time()
        if self._listeners or left > 0:
            self._loop.call_later(max(left, 1.0), self._end_if_unused)
        else:
            self.close()
            self._forget(self)

    async def _follow(self) -> None:
        while not self._is_over:
            try:
                await self._take_changes()
            except BrokerError as error:
                for listener in self._listeners:
                    listener.error = error
                    listener.news.set()
                self._read_at = None
            self._is_begun.set()
            if not self._is_over:
                await asyncio.sleep(AGAIN)

    async def _take_changes(self) -> None:
        request = pb.WatchNodesRequest(instance=self._id)
        async with aclosing(self._viewer.follow("WatchNodes", request)) as changes:
            async for change in changes:
                self._is_begun.set()  # a map that is read from now on misses nothing
                await self._take(change)

    async def _take(self, change: pb.NodeChanges) -> None:
        async with self._reading:
            is_all = change.incomplete
            self.columns.nodes = max(self.columns.nodes, change.nodes)
            changed: dict[int, int] = {}
            if self._read_at is not None and not is_all:
                if change.key and max(change.key) > self.columns.last:
                    read = await read_columns(self._viewer, self._id, self.columns)
                    is_all = read is not self.columns
                    self.columns = read
                ordinals, states = self.columns.change(change.key, change.state)
                changed = dict(zip(ordinals, states, strict=True))
        for listener in self._listeners:
            listener.states.update(changed)
            listener.is_all |= is_all
            listener.is_over |= change.ended
            listener.news.set()
        if change.incomplete or change.ended:
            self._read_at = None
        self._is_over = change.ended
        if self._is_over and not self._had_ended:
            self._forget(self)  # it may be retried, and must be followed again then


class Followers:
    """The instances that are followed, for each person separately; each end of a retried one has its own follower."""

    def __init__(self) -> None:
        self._followed: dict[tuple[str, bytes, float], Followed] = {}

    def follow(self, viewer: Viewer, info: pb.InstanceInfo) -> Followed:
        """Return the only follower of an instance for this person."""
        key = viewer.token, info.instance, info.ended_at
        if key not in self._followed:
            self._followed[key] = Followed(viewer, info, partial(self._forget, key))
        return self._followed[key]

    def _forget(self, key: tuple[str, bytes, float], followed: Followed) -> None:
        if self._followed.get(key) is followed:
            del self._followed[key]

    def close(self) -> None:
        """End all of them."""
        for followed in self._followed.values():
            followed.close()
