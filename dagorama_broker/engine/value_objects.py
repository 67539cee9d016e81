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
        self._unnamed: list[tuple[NewObject, asyncio.Future[ObjectRow | None]]] = []
        self._naming: asyncio.Task[None] | None = None

    async def keep(self, sha256: bytes, length: int, name: str = "") -> Placing | None:
        """Return the place to which a value must be sent; None if it is kept, and its grace period has begun again.

        `name`: the object to which a client has sent it, from an earlier place. Without signed URLs the returned place
        is empty. Raise ValuesAway.
        """
        if name:
            new = await self._in_thread(self._accepted, sha256, length, name)
            if new is not None:
                await self._become(new)
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
        await self._become(await self._in_thread(self._new, row))

    def _accepted(self, sha256: bytes, length: int, name: str) -> NewObject | None:
        row = self._objects.accept(sha256, length, name)
        return None if row is None else self._new(row)

    def _new(self, row: ObjectRow) -> NewObject:
        """Return the object with the one that it replaces: one that is missing or is being removed."""
        present = self._store.object_of(row.sha256)
        if present is None or not (self._objects.is_going(present) or not self._objects.is_there(present)):
            return NewObject(row)
        return NewObject(row, present.object)

    async def _become(self, new: NewObject) -> None:
        while (kept := await self._named(new)) is None:  # the value that was there is being removed
            new = await self._in_thread(self._new, new.row)
        if kept.object != new.row.object:
            self._objects.discard(new.row.object)

    async def _named(self, new: NewObject) -> ObjectRow | None:
        """Name an object with the next commit of names, which all share that come while one is under way."""
        named: asyncio.Future[ObjectRow | None] = asyncio.get_running_loop().create_future()
        self._unnamed.append((new, named))
        if self._naming is None:
            self._naming = asyncio.create_task(self._name_all())
        return await named

    async def _name_all(self) -> None:
        while self._unnamed:
            some, self._unnamed = self._unnamed, []
            done = await asyncio.gather(
                self._commits.in_store(self._name, [new for new, _ in some]), return_exceptions=True
            )
            for place, (_, named) in enumerate(some):
                if named.done():
                    continue  # the caller has hung up
                if isinstance(found := done[0], BaseException):
                    named.set_exception(found)
                else:
                    named.set_result(found[place])
        self._naming = None

    def _name(self, new: list[NewObject]) -> list[ObjectRow | None]:
        """Return the rows that the values have from now on; None if a value is being removed."""
        rows = self._store.name_objects(new)
        return [row if self._objects.restart_grace(row) else None for row in rows]

    async def find(self, sha256: bytes, wrong: str = "") -> tuple[Placing, int] | None:
        """Return the place of a value, and its length; None if it is read through the broker.

        `wrong`: an object that has other bytes, as a client says. If that is true, the value counts as lost until it
        is given again. Raise NotFound or ValuesAway.
        """
        return await self._in_thread(self._find, sha256, wrong) if self._objects.is_signed else None

    def _find(self, sha256: bytes, wrong: str) -> tuple[Placing, int]:
        row = self._row(sha256)
        if wrong == row.object and self._objects.is_damaged(row):
            raise NotFound(f"large value {sha256.hex()} has other bytes in the object store: call put() again")
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
