"""Who waits for which node to end. Told after the commit, never before; nobody polls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from dagorama_broker.errors import NotServing
from dagorama_broker.scheduler import Node


class Watch:
    """One caller's wait for some nodes; `next` gives those that have ended since it was asked last."""

    def __init__(self) -> None:
        self._ended: list[Node] = []
        self._event = asyncio.Event()
        self._closed = False

    def close(self) -> None:
        self._closed = True
        self._event.set()

    def tell(self, node: Node) -> None:
        self._ended.append(node)
        self._event.set()

    async def next(self) -> list[Node]:
        await self._event.wait()
        if self._closed:
            raise NotServing("the broker is leaving; wait again when it is back")
        self._event.clear()
        ended, self._ended = self._ended, []
        return ended


class Watching:
    """All waits, by node key."""

    def __init__(self) -> None:
        self._watches: dict[int, list[Watch]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._watches

    def add(self, keys: Iterable[int]) -> Watch:
        watch = Watch()
        for key in keys:
            self._watches.setdefault(key, []).append(watch)
        return watch

    def remove(self, watch: Watch, keys: Iterable[int]) -> None:
        for key in keys:
            watches = self._watches.get(key, [])
            if watch in watches:
                watches.remove(watch)
                if not watches:
                    del self._watches[key]

    def close(self) -> None:
        """Let all who wait know that the broker leaves."""
        for watches in self._watches.values():
            for watch in watches:
                watch.close()

    def tell(self, ended: Iterable[Node]) -> None:
        if not self._watches:
            return
        for node in ended:
            for watch in self._watches.get(node.key, ()):
                watch.tell(node)
