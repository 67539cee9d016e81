"""Keeps who waits for which node to end, and notifies them after the commit, never before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from dagorama_broker.errors import Unavailable
from dagorama_broker.scheduler import Node

LEAVING = "the broker is shutting down; wait again when it is back"


class NodeWaiter:
    """Collects the nodes that one caller waits for, as they end."""

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
        """Wait for nodes to end; return those since the last call. Raises Unavailable when the broker leaves."""
        await self._event.wait()
        if self._closed:
            raise Unavailable(LEAVING)
        self._event.clear()
        ended, self._ended = self._ended, []
        return ended


class Waiter(Protocol):
    """Is notified when a node ends, or when the broker leaves."""

    def tell(self, node: Node) -> None: ...

    def close(self) -> None:
        """End the wait, because the broker leaves."""
        ...


class Waiters:
    """Keeps all waits, by node key."""

    def __init__(self) -> None:
        # Most nodes are waited for once, so that one listener stands for itself.
        self._watches: dict[int, Waiter | dict[Waiter, None]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._watches

    def listen(self, listener: Waiter, key: int) -> None:
        """Notify this listener when the node with this key ends."""
        others = self._watches.setdefault(key, listener)
        if isinstance(others, dict):
            others[listener] = None
        elif others is not listener:
            self._watches[key] = {others: None, listener: None}

    def remove(self, listener: Waiter, keys: Iterable[int]) -> None:
        """Stop notifying this listener about these nodes."""
        for key in keys:
            found = self._watches.get(key)
            if found is listener:
                del self._watches[key]
            elif isinstance(found, dict):
                found.pop(listener, None)
                if not found:
                    del self._watches[key]

    def _listeners(self, key: int) -> list[Waiter]:
        found = self._watches.get(key)
        return [] if found is None else list(found) if isinstance(found, dict) else [found]

    def close(self) -> None:
        """Notify all listeners that the broker leaves."""
        for listener in dict.fromkeys(listener for key in self._watches for listener in self._listeners(key)):
            listener.close()

    def tell(self, ended: Iterable[Node]) -> None:
        """Notify the listeners of nodes that have ended."""
        watches = self._watches
        if not watches:
            return
        for node in ended:
            if node.key in watches:
                for listener in self._listeners(node.key):
                    listener.tell(node)
