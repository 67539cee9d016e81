"""Large values between the spool and the broker, some at a time, tried again until they are there or are refused."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama.client.chunks import CHUNK, DEADLINE, transfer_deadline
from dagorama.client.shared_files import SharedFiles
from dagorama.client.status import broker_error
from dagorama.errors import BrokerOverloaded, BrokerUnavailable
from dagorama.logging import get_logger
from dagorama.settings import shared_files
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.supervisor.refused_values import without_value
from dagorama.worker.supervisor.session import Backoff, Held
from dagorama.worker.supervisor.spool import Spool

if TYPE_CHECKING:
    from dagorama.api.broker_pb2_grpc import BrokerAsyncStub

SIDE_BY_SIDE = 4  #: values on their way at one time; more wait for their turn
#: Statuses by name that say nothing of the value: the same again may be taken. Any other is the broker's last word.
PASSING = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "INTERNAL", "UNKNOWN"})


class ValueRefused(Exception):
    """The broker does not take a value, and would not take it later."""


class Transfers:
    def __init__(self, stub: BrokerAsyncStub, spool: Spool) -> None:
        self._stub = stub
        self._spool = spool
        self._files: SharedFiles | None = None
        self._sending: dict[bytes, asyncio.Task[None]] = {}
        self._fetching: dict[bytes, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(SIDE_BY_SIDE)

    def share(self, folder: pb.ValuesFolderReply) -> None:
        """Where the broker's own folder is in sight, children read and write there."""
        self._files = SharedFiles.found(folder.path, folder.word) if shared_files() else None
        self._spool.show(self._files)

    def is_at_hand(self, digest: bytes) -> bool:
        return digest in self._spool or (self._files is not None and self._files.has(digest))

    def send(self, digest: bytes, waits: bytes = b"") -> asyncio.Task[None]:
        """Return a task that ends when the broker has the value; it raises ValueRefused.

        `waits` is the name under which a child has left it in the broker's folder; empty: it is in the spool.
        """
        task = self._sending.get(digest)
        if task is None:
            task = self._sending[digest] = asyncio.ensure_future(self._send(digest, waits.hex()))
            task.add_done_callback(lambda _: self._sending.pop(digest, None))
        elif waits:  # another child has made the same value
            task.add_done_callback(lambda _: self._drop(waits.hex()))
        return task

    def _drop(self, waits: str) -> None:
        if self._files is not None:
            self._files.drop(waits)

    async def _send(self, digest: bytes, waits: str) -> None:
        backoff = Backoff()
        while True:
            try:
                async with self._turns:
                    await self._hand_over(digest, waits)
                return
            except grpc.aio.AioRpcError as error:
                if not _may_pass(error):
                    raise ValueRefused(error.details() or error.code().name) from None
                problem = error.details()
            await _pause(backoff, f"sending the large value {digest.hex()}", problem)

    async def _hand_over(self, digest: bytes, waits: str) -> None:
        if await self._is_kept(digest, waits):
            return
        if not waits:
            await self._upload(self._spool.path(digest))
        elif self._files is not None:
            await self._upload(self._files.unfinished(waits))
            self._drop(waits)

    async def _upload(self, path: Path) -> None:
        # Where it is not here: it was handed over before, and the broker will say of who names it that it is gone.
        with suppress(FileNotFoundError):
            length = path.stat().st_size
            await self._stub.PutValue(_chunks(path), timeout=transfer_deadline(length))

    async def _is_kept(self, digest: bytes, waits: str) -> bool:
        request = pb.KeepValueRequest(sha256=digest, unfinished=waits)
        return (await self._stub.KeepValue(request, timeout=DEADLINE)).kept

    async def fetch(self, digest: bytes) -> None:
        """Until it is in the spool, or the broker says that it has no such value: whoever reads it will see."""
        task = self._fetching.get(digest)
        if task is None:
            task = self._fetching[digest] = asyncio.ensure_future(self._fetch(digest))
            task.add_done_callback(lambda _: self._fetching.pop(digest, None))
        await asyncio.shield(task)

    async def _fetch(self, digest: bytes) -> None:
        backoff = Backoff()
        while not self.is_at_hand(digest):
            try:
                async with self._turns:
                    if await self._download(digest):
                        return
                problem: str | None = "what came is something else"
            except grpc.aio.AioRpcError as error:
                if not _may_pass(error):
                    return
                problem = error.details()
            await _pause(backoff, f"fetching the large value {digest.hex()}", problem)

    async def _download(self, digest: bytes) -> bool:
        path = self._spool.path(digest)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        partial, found = path.with_suffix(".fetched"), sha256()
        with partial.open("wb") as file:
            async for chunk in self._stub.GetValue(pb.GetValueRequest(sha256=digest)):
                file.write(chunk.data)
                found.update(chunk.data)
        whole = found.digest() == digest
        if whole:
            partial.replace(path)
        return whole


class Forwarder:
    """Passes on what one slot says, in order; what names large values waits until the broker has them."""

    def __init__(self, transfers: Transfers, spool: Spool, forward: Callable[[Kind, Held, bytes], None]) -> None:
        self._transfers = transfers
        self._spool = spool
        self._forward = forward
        self._waiting: deque[tuple[Kind, Held, Outcome, list[asyncio.Task[None]]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def take(self, kind: Kind, held: Held, outcome: Outcome) -> None:
        if not outcome.large and not self._waiting:
            self._forward(kind, held, outcome.body)
            return
        self._spool.hold(outcome.large)
        sending = [self._transfers.send(digest, outcome.waiting.get(digest, b"")) for digest in outcome.large]
        self._waiting.append((kind, held, outcome, sending))
        if self._task is None:
            self._task = asyncio.ensure_future(self._send_all())

    @property
    def held(self) -> list[Held]:
        """Attempts whose outcome waits here."""
        return [held for _, held, _, _ in self._waiting]

    async def _send_all(self) -> None:
        while self._waiting:
            kind, held, outcome, sending = self._waiting[0]
            large = outcome.large
            for digest, sent in zip(large, sending, strict=True):
                try:
                    await sent
                except ValueRefused as refusal:
                    get_logger().warning("the broker does not take the large value %s: %s", digest.hex(), refusal)
                    outcome = without_value(outcome, digest, str(refusal))
            self._waiting.popleft()
            self._spool.release(large)
            self._forward(kind, held, outcome.body)
        self._task = None


async def _chunks(path: Path) -> AsyncIterator[pb.ValueChunk]:
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            yield pb.ValueChunk(data=data)


def _may_pass(error: grpc.aio.AioRpcError) -> bool:
    """Whether the same may be answered otherwise later: the broker is away, or says when it may have room."""
    found = broker_error(error, "")
    if error.code().name in PASSING or isinstance(found, BrokerUnavailable):
        return True
    return isinstance(found, BrokerOverloaded) and found.retry_after is not None


async def _pause(backoff: Backoff, what: str, problem: str | None) -> None:
    get_logger().warning("%s: %s; trying again", what, problem)
    await asyncio.sleep(backoff.pause(random.random()))
