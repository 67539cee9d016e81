"""Transfer large values between the spool and the broker, a few at a time.

A transfer is retried until it succeeds or the broker refuses the value. If an object store does not answer for
DAGORAMA_VALUES_PATIENCE, it is given up, and so is, after some seconds, the transfer of a value that nodes need.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import CHUNK
from dagorama.client.chunks import DEADLINE, transfer_deadline
from dagorama.client.object_http import TransferFailed
from dagorama.client.shared_files import SharedFiles
from dagorama.client.status import broker_error
from dagorama.errors import BrokerOverloaded, BrokerUnavailable, ValuesUnavailable
from dagorama.logging import get_logger
from dagorama.settings import shared_files
from dagorama.worker.supervisor.object_transfers import ObjectTransfers, Patience, ValueLost
from dagorama.worker.supervisor.session import Backoff
from dagorama.worker.supervisor.spool import Spool

if TYPE_CHECKING:
    from dagorama.api.broker_pb2_grpc import BrokerAsyncStub

MAX_CONCURRENT_TRANSFERS = 4
#: Seconds for which a value is fetched from an object store that does not answer, until its nodes are returned: they
#: are soon granted again, and meanwhile the nodes behind them in the slot run.
FETCHING = 5.0
#: Called with the reason for which a transfer waits.
Tell = Callable[[str], None]
#: Names of statuses after which the same request may succeed later. Any other status is a final refusal.
TRANSIENT_STATUSES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "INTERNAL", "UNKNOWN"})


class ValueRefused(Exception):
    """The broker refused a large value, and would refuse it again."""


class StoreAway(Exception):
    """The object store of large values has not answered for too long."""


class Transfers:
    """The large values that are being sent and fetched, each at most once at a time."""

    def __init__(self, stub: BrokerAsyncStub, spool: Spool) -> None:
        self._stub = stub
        self._spool = spool
        self._files: SharedFiles | None = None
        self._takes_named = False
        self._objects = ObjectTransfers(stub)
        self._troubled: dict[bytes, list[Tell]] = {}  # who is told about trouble, by value
        self._sending: dict[bytes, asyncio.Task[None]] = {}
        self._fetching: dict[bytes, asyncio.Task[None]] = {}
        self.fetched = self.fetched_bytes = 0  #: values that were downloaded, and their bytes
        self._free_transfers = asyncio.Semaphore(MAX_CONCURRENT_TRANSFERS)

    def share(self, folder: pb.GetSharedFolderReply) -> None:
        """Let the children read and write in the broker's folder if it is on this machine."""
        self._files = SharedFiles.found(folder.path, folder.nonce) if shared_files() else None
        self._takes_named = folder.takes_named
        self._spool.show(self._files, self._takes_named)

    def is_left(self, unfinished: bytes) -> bool:
        """Return whether the broker will take the value from its folder when a report names it.

        `unfinished` is the first name of the file that a child has written there, or empty.
        """
        if not unfinished or not self._takes_named or self._files is None:
            return False
        # A child that wrote it for an earlier broker has not renamed it: then `send` asks this one to keep it.
        return not self._files.unfinished(unfinished.hex()).exists()

    def is_at_hand(self, digest: bytes) -> bool:
        """Return whether a child can read the value now."""
        return digest in self._spool or (self._files is not None and self._files.has(digest))

    def send(self, digest: bytes, unfinished: bytes, tell: Tell) -> asyncio.Task[None]:
        """Return a task that ends when the broker has the value. The task raises ValueRefused and StoreAway.

        `unfinished` is the name of the file that a child has written to the broker's folder. If it is empty, the value
        is in the spool. `tell` is called if the object store does not answer.
        """
        self._troubled.setdefault(digest, []).append(tell)
        task = self._sending.get(digest)
        if task is None:
            task = self._sending[digest] = asyncio.ensure_future(self._send(digest, unfinished.hex()))
            task.add_done_callback(lambda _: self._over(self._sending, digest))
        elif unfinished:  # another child has written the same value
            task.add_done_callback(lambda _: self._drop(unfinished.hex()))
        return task

    def _drop(self, unfinished: str) -> None:
        if self._files is not None:
            self._files.drop(unfinished)

    def _over(self, tasks: dict[bytes, asyncio.Task[None]], digest: bytes) -> None:
        tasks.pop(digest, None)
        self._troubled.pop(digest, None)

    async def _send(self, digest: bytes, unfinished: str) -> None:
        backoff, patience = Backoff(), Patience(self._objects.patience)
        while True:
            try:
                async with self._free_transfers:
                    await self._hand_over(digest, unfinished)
                return
            except grpc.aio.AioRpcError as error:
                if not _may_pass(error):
                    raise ValueRefused(error.details() or error.code().name) from None
                problem, is_away = error.details(), _is_away(error)
            except TransferFailed as error:
                problem, is_away = str(error), True
            self._trouble(patience, digest, "storing", problem, is_away)
            await _pause(backoff, f"sending the large value {digest.hex()}", problem)

    def _trouble(self, patience: Patience, digest: bytes, doing: str, problem: str | None, is_away: bool) -> None:
        """Say for what the nodes wait; raise StoreAway if they have waited long enough for the object store."""
        patience.note(is_away)
        text = f"{doing} the large value {digest.hex()}: {problem}"
        if patience.is_over:
            raise StoreAway(text)
        if is_away:
            for tell in self._troubled.pop(digest, ()):  # each once
                tell(f"waits for {text}")

    async def _hand_over(self, digest: bytes, unfinished: str) -> None:
        if not unfinished and (is_kept := await self._objects.send(digest, self._spool.path(digest))) is not None:
            if not is_kept:
                await self._upload(self._spool.path(digest))
            return
        if await self._is_kept(digest, unfinished):
            return
        if not unfinished:
            await self._upload(self._spool.path(digest))
        elif self._files is not None:
            await self._upload(self._files.unfinished(unfinished))
            self._drop(unfinished)

    async def _upload(self, path: Path) -> None:
        # If the file is missing, the value was sent before. If the broker has lost it since, it refuses the report.
        with suppress(FileNotFoundError):
            length = path.stat().st_size
            await self._stub.PutValue(_chunks(path), timeout=transfer_deadline(length))

    async def _is_kept(self, digest: bytes, unfinished: str) -> bool:
        request = pb.ImportValueRequest(sha256=digest, unfinished=unfinished)
        return (await self._stub.ImportValue(request, timeout=DEADLINE)).kept

    async def fetch(self, digest: bytes, tell: Tell) -> None:
        """Wait until the value is in the spool, or the broker has answered that it does not have it.

        In the second case the node that reads the value fails. Raises StoreAway. `tell` is called if the object store
        does not answer.
        """
        self._troubled.setdefault(digest, []).append(tell)
        task = self._fetching.get(digest)
        if task is None:
            task = self._fetching[digest] = asyncio.ensure_future(self._fetch(digest))
            task.add_done_callback(lambda _: self._over(self._fetching, digest))
        await asyncio.shield(task)

    async def _fetch(self, digest: bytes) -> None:
        backoff, patience = Backoff(), Patience(min(self._objects.patience, FETCHING))
        while not self.is_at_hand(digest):
            try:
                async with self._free_transfers:
                    if await self._download(digest):
                        return
                problem, is_away = "the received data does not match its hash", False
            except grpc.aio.AioRpcError as error:
                if not _may_pass(error):
                    return
                problem, is_away = error.details() or "", _is_away(error)
            except TransferFailed as error:
                problem, is_away = str(error), True
            except ValueLost as error:
                get_logger().error("the large value %s is lost: %s; call put() again", digest.hex(), error)
                return
            self._trouble(patience, digest, "fetching", problem, is_away)
            await _pause(backoff, f"fetching the large value {digest.hex()}", problem)

    async def _download(self, digest: bytes) -> bool:
        path = self._spool.path(digest)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fetched, found = path.with_suffix(".fetched"), sha256()
        if (length := await self._objects.fetch(digest, fetched)) is not None:
            return self._take_in(fetched, path, length)
        with fetched.open("wb") as file:
            async for chunk in self._stub.GetValue(pb.GetValueRequest(sha256=digest)):
                file.write(chunk.data)
                found.update(chunk.data)
        return found.digest() == digest and self._take_in(fetched, path, fetched.stat().st_size)

    def _take_in(self, fetched: Path, path: Path, length: int) -> bool:
        """Put a fetched file in its place; return True."""
        fetched.replace(path)
        self.fetched += 1
        self.fetched_bytes += length
        return True


async def _chunks(path: Path) -> AsyncIterator[pb.ValueChunk]:
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            yield pb.ValueChunk(data=data)


def _may_pass(error: grpc.aio.AioRpcError) -> bool:
    """Return whether a later retry may succeed: the broker is unreachable, or has sent a time to retry at."""
    found = broker_error(error, "")
    if error.code().name in TRANSIENT_STATUSES or isinstance(found, BrokerUnavailable):
        return True
    return isinstance(found, BrokerOverloaded) and found.retry_after is not None


def _is_away(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the broker was reached, and the object store does not answer it."""
    return isinstance(broker_error(error, ""), ValuesUnavailable)


async def _pause(backoff: Backoff, what: str, problem: str | None) -> None:
    get_logger().warning("%s: %s; trying again", what, problem)
    await asyncio.sleep(backoff.pause(random.random()))
