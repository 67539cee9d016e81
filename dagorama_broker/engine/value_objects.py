"""Large values in an object store: which are kept, where clients send and read them, and which object is which value.

Everything that may wait for the object store or for the disk runs in threads; rows are written in the store's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dagorama_broker.engine.commits import Commits
from dagorama_broker.errors import NotFound
from dagorama_broker.model.objects import NewObject, ObjectRow, Placing
from dagorama_broker.store.objects.large_objects import LargeObjects

T = TypeVar("T")

#: Questions to the object store at the same time.
SIDE_BY_SIDE = 16


class ValueObjects:
    """The large values of a store whose values are objects."""

    def __init__(self, commits: Commits, objects: LargeObjects) -> None:
        self._commits = commits
        self._store = commits.store
        self._objects = objects
        self._threads = ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="objects")

    async def keep(self, sha256: bytes, length: int, name: str = "") -> Placing | None:
        """Return where to send a value; None if it is kept, and its grace period has begun again.

        `name`: the object to which a client has sent it, as an earlier call told it. Without signed URLs the returned
        one is empty. Raise ValuesAway.
        """
        if name:
            row = await self._in_thread(self._objects.accept, sha256, length, name)
            if row is not None:
                await self.name(row)
                return None
        if await self._in_thread(self._is_kept, sha256, length):
            return None
        return await self._in_thread(self._objects.offer, sha256, length) if self._objects.is_signed else Placing("")

    def _is_kept(self, sha256: bytes, length: int) -> bool:
        row = self._store.object_of(sha256)
        if row is None or length not in (0, row.length) or not self._objects.is_there(row):
            return False
        return self._objects.restart_grace(row)

    async def name(self, row: ObjectRow) -> None:
        """Let an object be a value, durably, unless another object is; the grace period of the value begins again."""
        while True:
            lost = await self._in_thread(self._lost, row.sha256)
            [kept] = await self._commits.in_store(self._store.name_objects, [NewObject(row, lost)])
            if await self._in_thread(self._objects.restart_grace, kept):
                break
        if kept.object != row.object:
            self._objects.discard(row.object)

    def _lost(self, sha256: bytes) -> str:
        """Return the object that holds a value and is missing or being removed; empty: there is none."""
        row = self._store.object_of(sha256)
        if row is None or not (self._objects.is_going(row) or not self._objects.is_there(row)):
            return ""
        return row.object

    async def find(self, sha256: bytes) -> tuple[Placing, int] | None:
        """Return where to read a value, and its length; None if it is read through the broker. Raise NotFound."""
        return await self._in_thread(self._find, sha256) if self._objects.is_signed else None

    def _find(self, sha256: bytes) -> tuple[Placing, int]:
        row = self._row(sha256)
        return self._objects.place(row), row.length

    def read(self, sha256: bytes) -> Iterator[bytes]:
        """Return a value in chunks, in any thread. Raise NotFound or ValuesAway, also in the iteration."""
        chunks = self._objects.read(self._row(sha256))
        if chunks is None:
            raise NotFound(f"large value {sha256.hex()} is missing in {self._objects.remote.url}")
        return chunks

    def _row(self, sha256: bytes) -> ObjectRow:
        row = self._store.object_of(sha256)
        if row is None or self._objects.is_going(row):
            raise NotFound(f"large value {sha256.hex()} is not stored here")
        return row

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
