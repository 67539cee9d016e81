"""Takes in what nodes print and log, writes it in a thread of its own, and reads it for people.

The rule: the loop only appends to a list. A slow or full disk costs logs, which are counted as left out, and never
delays or fails the work.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from dagorama_broker.engine.commits import Commits
from dagorama_broker.engine.reports import owner_of
from dagorama_broker.errors import FailedPrecondition, StoreError, Unavailable
from dagorama_broker.model.domain import State
from dagorama_broker.model.logs import KeptPart, LogOwner, LogPart, LogQuery
from dagorama_broker.scheduler import Node
from dagorama_broker.store.sqlite.log_file import LogFile

T = TypeVar("T")
log = logging.getLogger("dagorama_broker")

#: Seconds for which parts gather before they are written together.
GATHERING = 0.1
#: Bytes of parts that may wait to be written.
MOST_WAITING = 32 << 20
#: Bytes that a part takes in memory in addition to its records.
PART_BYTES = 500
#: Attempts for which it is counted how much of their logs was lost.
MOST_GAPS = 10_000
#: Cancelled attempts whose last parts are still taken.
MOST_CANCELLED = 10_000
#: Seconds after which writing is tried again after a failure.
RETRY = 5.0
#: Seconds between two warnings that logs are dropped.
QUIET = 600.0
#: Seconds for writing the last parts when the broker leaves.
LAST_WRITE = 5.0
#: Instances whose existence is checked together.
TOGETHER = 100
#: Bytes of logs in memory, for a broker without a file.
MOST_IN_MEMORY = 64 << 20


class Logs:
    """The logs of all nodes."""

    def __init__(self, file: LogFile | None = None) -> None:
        self._file = file or LogFile(None, MOST_IN_MEMORY)
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: list[LogPart] = []
        self._size = 0  # bytes of these
        self._gaps: dict[int, LogPart] = {}  # by attempt: how much of it was lost
        self.bytes_dropped = 0  #: of text, since the broker has started
        self._writing: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._retrying: asyncio.TimerHandle | None = None
        self._is_failing = False
        self._warn_at = 0.0  # the loop's time from which another warning may be logged
        self._cancelled: OrderedDict[int, LogOwner] = OrderedDict()
        self._followers: dict[bytes, set[asyncio.Event]] = {}
        self._is_closed = False

    def use(self, file: LogFile) -> None:
        """Keep logs in this file instead of in memory. To be called before the broker serves."""
        self._file = file

    # --- taking ---------------------------------------------------------------------------------------

    def take(self, part: LogPart) -> None:
        """Take a part, which is written soon."""
        cost = len(part.records) + PART_BYTES
        if self._size + cost > MOST_WAITING:
            self._fail("it is too slow for what nodes print")
            self._lose([part])
            return
        self._waiting.append(part)
        self._size += cost
        self._write_soon()

    def remember_cancelled(self, nodes: Iterable[Node]) -> None:
        """Let the last parts of cancelled nodes be taken although they have ended."""
        for node in nodes:
            if node.state is State.CANCELLED and node.block is not None and node.attempt:
                self._cancelled[node.attempt] = owner_of(node)
        while len(self._cancelled) > MOST_CANCELLED:
            self._cancelled.popitem(last=False)

    def owner_of_cancelled(self, attempt: int) -> LogOwner | None:
        """Return the node of an attempt that was cancelled a short while ago."""
        return self._cancelled.get(attempt)

    # --- writing --------------------------------------------------------------------------------------

    def _write_soon(self) -> None:
        if self._writing is None and not self._is_closed:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._waiting:
                with suppress(TimeoutError):
                    async with asyncio.timeout(GATHERING):
                        await self._hurry.wait()
                await self._write_waiting()
        finally:
            self._writing = None
            self._hurry.clear()

    async def _write_waiting(self) -> None:
        parts, self._waiting, self._size = self._waiting, [], 0
        gaps, self._gaps = self._gaps, {}
        try:
            await self._in_thread(self._file.add, [*gaps.values(), *parts])
        except StoreError as error:
            self._fail(f"{error}")
            self._lose([*gaps.values(), *parts])
        else:
            self._is_failing = False
            self._wake({part.owner.instance for part in parts})

    def _fail(self, why: str) -> None:
        """Warn, but not again and again if writing fails now and then."""
        now = asyncio.get_running_loop().time()
        if not self._is_failing and now >= self._warn_at:
            log.warning("logs of nodes are dropped, the work goes on: %s", why)
            self._warn_at = now + QUIET
        self._is_failing = True

    def _lose(self, parts: Iterable[LogPart]) -> None:
        for part in parts:
            self.bytes_dropped += part.size
            gap = self._gaps.get(part.attempt)
            if gap is None and len(self._gaps) >= MOST_GAPS:
                continue
            lost = part.lost
            self._gaps[part.attempt] = lost if gap is None else lost._replace(left_out=gap.left_out + lost.left_out)
        if self._retrying is None and not self._is_closed:
            self._retrying = asyncio.get_running_loop().call_later(RETRY, self._retry)

    def _retry(self) -> None:
        """Write how much was lost, now that writing may be possible again."""
        self._retrying = None
        if self._gaps:
            gaps, self._gaps = list(self._gaps.values()), {}
            self._waiting += gaps
            self._write_soon()

    async def written(self) -> None:
        """Wait until all parts that were taken are written, or lost."""
        self._hurry.set()
        if self._writing is not None:
            await asyncio.shield(self._writing)
        self._hurry.clear()

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="logs")
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    # --- removing -------------------------------------------------------------------------------------

    def remove(self, instances: Collection[bytes]) -> None:
        """Remove the logs of instances that are removed."""
        gone = set(instances)
        for attempt in [attempt for attempt, owner in self._cancelled.items() if owner.instance in gone]:
            del self._cancelled[attempt]
        self._waiting = [part for part in self._waiting if part.owner.instance not in gone]
        asyncio.get_running_loop().create_task(self._remove(gone)).add_done_callback(_seen)

    async def remove_unknown(self, commits: Commits) -> None:
        """Remove, at the start, the logs of instances that are gone and whose logs an earlier broker has left."""
        view, after = commits.store.view, b""
        with suppress(StoreError, Unavailable):
            while ids := await self._in_thread(self._file.instances, after, TOGETHER):
                after = ids[-1]
                await self._remove([id for id in ids if await commits.in_view(view.instance, id) is None])

    async def _remove(self, instances: Collection[bytes]) -> None:
        try:
            if instances:
                await self._in_thread(self._file.remove, instances)
        except StoreError as error:  # the next start tries again
            self._fail(f"{error}")

    async def close(self) -> None:
        """Write what waits, and close the file."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE):
                await self.written()
        self._is_closed = True
        if self._retrying is not None:
            self._retrying.cancel()
        if self._thread is not None:
            self._thread.submit(self._file.close)
            self._thread.shutdown(wait=False)

    # --- reading --------------------------------------------------------------------------------------

    async def read(self, asked: LogQuery, after: int = 0) -> AsyncGenerator[KeptPart, None]:
        """Yield the parts after this ID. Raises FailedPrecondition if they cannot be read."""
        while True:
            try:
                page = await self._in_thread(self._file.read, asked, after)
            except StoreError as error:
                raise FailedPrecondition(f"the logs cannot be read: {error}") from None
            for part in page:
                yield part
                after = part.id
            if not page:
                return

    @contextmanager
    def following(self, instance: bytes) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever parts of this instance were written."""
        event = asyncio.Event()
        self._followers.setdefault(instance, set()).add(event)
        try:
            yield event
        finally:
            self._followers[instance].discard(event)
            if not self._followers[instance]:
                del self._followers[instance]

    @property
    def followed(self) -> Collection[bytes]:
        """The IDs of the instances that are followed."""
        return self._followers.keys()

    def _wake(self, instances: Iterable[bytes]) -> None:
        for instance in instances:
            for event in self._followers.get(instance, ()):
                event.set()


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("logs of removed instances could not be removed: %r", task.exception())
