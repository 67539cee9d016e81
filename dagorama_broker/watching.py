"""Who waits for which node to end. Told after the commit, never before; nobody polls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from dagorama_broker.errors import NotServing
from dagorama_broker.scheduler import Node

LEAVING = "the broker is leaving; wait again when it is back"


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
            raise NotServing(LEAVING)
        self._event.clear()
        ended, self._ended = self._ended, []
        return ended


class Listener(Protocol):
    """Who is told of the end of a node."""

    def tell(self, node: Node) -> None: ...

    def close(self) -> None:
        """The broker leaves."""
        ...


class Watching:
    """All waits, by node key."""

    def __init__(self) -> None:
        self._watches: dict[int, list[Listener]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._watches

    def add(self, keys: Iterable[int]) -> Watch:
        watch = Watch()
        for key in keys:
            self.listen(watch, key)
        return watch

    def listen(self, listener: Listener, key: int) -> None:
        self._watches.setdefault(key, []).append(listener)

    def remove(self, watch: Listener, keys: Iterable[int]) -> None:
        for key in keys:
            watches = self._watches.get(key, [])
            if watch in watches:
                watches.remove(watch)
                if not watches:
                    del self._watches[key]

    def close(self) -> None:
        """Let all who wait know that the broker leaves."""
        for watches in list(self._watches.values()):
            for watch in list(watches):
                watch.close()

    def tell(self, ended: Iterable[Node]) -> None:
        if not self._watches:
            return
        for node in ended:
            for watch in list(self._watches.get(node.key, ())):
                watch.tell(node)
