"""Follows the nodes of instances whose drawings are open, once for all pages of a person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from time import monotonic

from dagorama.api import broker_pb2 as pb
from dagorama.errors import BrokerError
from dagorama_dashboard.broker import Viewer
from dagorama_dashboard.following.columns import MOST_NODES, Columns, Shifted

#: Seconds that the broker has for a map, and for which a map counts as new.
MAP_SECONDS, FRESH = 30.0, 2.0
#: Seconds after which a broken stream is opened again.
AGAIN = 1.0


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

    def __init__(self) -> None:
        self.states: dict[int, int] = {}  #: by ordinal
        self.is_all = False  #: the page must load the whole map again
        self.error: BrokerError | None = None
        self.is_over = False
        self.news = asyncio.Event()

    def take(self) -> tuple[dict[int, int], bool]:
        states, self.states = self.states, {}
        is_all, self.is_all = self.is_all, False
        if not self.is_over:
            self.news.clear()
        return states, is_all


class Followed:
    """An instance whose changes are followed."""

    def __init__(self, viewer: Viewer, id: bytes, created: float) -> None:
        self._viewer, self._id, self._created = viewer, id, created
        self.listeners: set[Listener] = set()
        self.columns = Columns(created)
        self._read_at = 0.0
        self._reading = asyncio.Lock()
        self._is_begun = asyncio.Event()
        self._is_over = False
        self.task = asyncio.create_task(self._follow())

    async def map(self, *, whole: bool) -> Columns:
        """Return the columns. With `whole` their times are at most `FRESH` old. Raises BrokerError."""
        await self._is_begun.wait()
        async with self._reading:
            if self._read_at == 0.0 or (whole and monotonic() - self._read_at > FRESH):
                self.columns = await read_columns(self._viewer, self._id, Columns(self._created))
                self._read_at = monotonic()
            return self.columns

    async def _follow(self) -> None:
        while not self._is_over:
            try:
                await self._take_changes()
            except BrokerError as error:
                for listener in self.listeners:
                    listener.error = error
                    listener.news.set()
                self._read_at = 0.0
            self._is_begun.set()
            if not self._is_over:
                await asyncio.sleep(AGAIN)

    async def _take_changes(self) -> None:
        request = pb.WatchNodesRequest(instance=self._id)
        async with aclosing(self._viewer.follow("WatchNodes", request)) as changes:
            async for change in changes:
                self._is_begun.set()  # what is read from now on misses nothing
                await self._take(change)

    async def _take(self, change: pb.NodeChanges) -> None:
        async with self._reading:
            is_all = change.incomplete
            self.columns.nodes = max(self.columns.nodes, change.nodes)
            changed: dict[int, int] = {}
            if self._read_at and not is_all:
                if change.key and max(change.key) > self.columns.last:
                    read = await read_columns(self._viewer, self._id, self.columns)
                    is_all = read is not self.columns
                    self.columns = read
                ordinals, states = self.columns.change(change.key, change.state)
                changed = dict(zip(ordinals, states, strict=True))
        for listener in self.listeners:
            listener.states.update(changed)
            listener.is_all |= is_all
            listener.is_over |= change.ended
            listener.news.set()
        if change.incomplete or change.ended:
            self._read_at = 0.0
        self._is_over = change.ended


class Followers:
    """The instances that are followed, for each person separately."""

    def __init__(self) -> None:
        self._followed: dict[tuple[str, bytes], Followed] = {}

    def find(self, viewer: Viewer, id: bytes) -> Followed | None:
        """Return what follows this instance already."""
        return self._followed.get((viewer.token, id))

    @asynccontextmanager
    async def listening(self, viewer: Viewer, id: bytes, created: float) -> AsyncIterator[tuple[Followed, Listener]]:
        """Follow an instance within the context."""
        key = viewer.token, id
        if key not in self._followed:
            self._followed[key] = Followed(viewer, id, created)
        followed, listener = self._followed[key], Listener()
        followed.listeners.add(listener)
        try:
            yield followed, listener
        finally:
            followed.listeners.remove(listener)
            if not followed.listeners and self._followed.get(key) is followed:
                followed.task.cancel()
                del self._followed[key]
