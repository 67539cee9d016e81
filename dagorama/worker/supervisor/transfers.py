"""Transfer large values between the spool and the broker, a few at a time.

A transfer is retried until it succeeds or the broker refuses the value. A report that names a refused value is changed:
the attempts that need the value fail, the other attempts keep their results.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import CHUNK
from dagorama.client.chunks import DEADLINE, transfer_deadline
from dagorama.client.shared_files import SharedFiles
from dagorama.client.status import broker_error
from dagorama.errors import BrokerOverloaded, BrokerUnavailable
from dagorama.logging import get_logger
from dagorama.settings import shared_files
from dagorama.worker.failures import MESSAGE_BYTES, truncate
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.supervisor.session import Backoff, Held
from dagorama.worker.supervisor.spool import Spool

if TYPE_CHECKING:
    from dagorama.api.broker_pb2_grpc import BrokerAsyncStub

MAX_CONCURRENT_TRANSFERS = 4
#: Names of statuses after which the same request may succeed later. Any other status is a final refusal.
TRANSIENT_STATUSES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "INTERNAL", "UNKNOWN"})


#: the failure type of an attempt whose large value the broker refused; the same error is raised if a child refuses it
REFUSED = "dagorama.errors.RequestRejected"


class ValueRefused(Exception):
    """The broker refused a large value, and would refuse it again."""


class Transfers:
    """The large values that are being sent and fetched, each at most once at a time."""

    def __init__(self, stub: BrokerAsyncStub, spool: Spool) -> None:
        self._stub = stub
        self._spool = spool
        self._files: SharedFiles | None = None
        self._sending: dict[bytes, asyncio.Task[None]] = {}
        self._fetching: dict[bytes, asyncio.Task[None]] = {}
        self._free_transfers = asyncio.Semaphore(MAX_CONCURRENT_TRANSFERS)

    def share(self, folder: pb.GetSharedFolderReply) -> None:
        """Let the children read and write in the broker's folder if it is on this machine."""
        self._files = SharedFiles.found(folder.path, folder.nonce) if shared_files() else None
        self._spool.show(self._files)

    def is_at_hand(self, digest: bytes) -> bool:
        """Return whether a child can read the value now."""
        return digest in self._spool or (self._files is not None and self._files.has(digest))

    def send(self, digest: bytes, unfinished: bytes = b"") -> asyncio.Task[None]:
        """Return a task that ends when the broker has the value. The task raises ValueRefused.

        `unfinished` is the name of the file that a child has written to the broker's folder. If it is empty, the value
        is in the spool.
        """
        task = self._sending.get(digest)
        if task is None:
            task = self._sending[digest] = asyncio.ensure_future(self._send(digest, unfinished.hex()))
            task.add_done_callback(lambda _: self._sending.pop(digest, None))
        elif unfinished:  # another child has written the same value
            task.add_done_callback(lambda _: self._drop(unfinished.hex()))
        return task

    def _drop(self, unfinished: str) -> None:
        if self._files is not None:
            self._files.drop(unfinished)

    async def _send(self, digest: bytes, unfinished: str) -> None:
        backoff = Backoff()
        while True:
            try:
                async with self._free_transfers:
                    await self._hand_over(digest, unfinished)
                return
            except grpc.aio.AioRpcError as error:
                if not _may_pass(error):
                    raise ValueRefused(error.details() or error.code().name) from None
                problem = error.details()
            await _pause(backoff, f"sending the large value {digest.hex()}", problem)

    async def _hand_over(self, digest: bytes, unfinished: str) -> None:
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

    async def fetch(self, digest: bytes) -> None:
        """Wait until the value is in the spool, or the broker has answered that it does not have it.

        In the second case the node that reads the value fails.
        """
        task = self._fetching.get(digest)
        if task is None:
            task = self._fetching[digest] = asyncio.ensure_future(self._fetch(digest))
            task.add_done_callback(lambda _: self._fetching.pop(digest, None))
        await asyncio.shield(task)

    async def _fetch(self, digest: bytes) -> None:
        backoff = Backoff()
        while not self.is_at_hand(digest):
            try:
                async with self._free_transfers:
                    if await self._download(digest):
                        return
                problem: str | None = "the received data does not match its hash"
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
    """Forward the outcomes of one slot in order. An outcome with large values waits until the broker has these."""

    def __init__(self, transfers: Transfers, spool: Spool, forward: Callable[[Kind, Held, bytes], None]) -> None:
        self._transfers = transfers
        self._spool = spool
        self._forward = forward
        self._waiting: deque[tuple[Kind, Held, Outcome, list[asyncio.Task[None]]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def take(self, kind: Kind, held: Held, outcome: Outcome) -> None:
        """Forward an outcome now, or later if it or an earlier one waits for large values."""
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
        """The attempts whose outcomes wait for large values."""
        return [held for _, held, _, _ in self._waiting]

    async def _send_all(self) -> None:
        while self._waiting:
            kind, held, outcome, sending = self._waiting[0]
            large = outcome.large
            for digest, sent in zip(large, sending, strict=True):
                try:
                    await sent
                except ValueRefused as refusal:
                    get_logger().warning("the broker refused the large value %s: %s", digest.hex(), refusal)
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
    """Return whether a later retry may succeed: the broker is unreachable, or has sent a time to retry at."""
    found = broker_error(error, "")
    if error.code().name in TRANSIENT_STATUSES or isinstance(found, BrokerUnavailable):
        return True
    return isinstance(found, BrokerOverloaded) and found.retry_after is not None


async def _pause(backoff: Backoff, what: str, problem: str | None) -> None:
    get_logger().warning("%s: %s; trying again", what, problem)
    await asyncio.sleep(backoff.pause(random.random()))


# --- reports without a refused value ------------------------------------------------------------------------


def without_value(outcome: Outcome, digest: bytes, why: str) -> Outcome:
    """Return the outcome with a failure in place of each attempt whose value or child nodes need the large value."""
    results = pb.Results.FromString(outcome.body)
    failed = {results.attempt[index]: results.node[index] for index in _users(results, digest)}
    failed |= {child.attempt: child.node for child in results.children if digest in child.nodes.large}
    message = truncate(f"a large value that the result needs could not be stored: {why}", MESSAGE_BYTES)
    rest = _without(results, set(failed))
    for attempt, node in failed.items():
        rest.failures.add(node=node, attempt=attempt, type=REFUSED, message=message)
    return outcome._replace(body=rest.SerializeToString())


def _users(results: pb.Results, digest: bytes) -> list[int]:
    """Return the indexes of the results whose values need the large value."""
    return [of for value, of in zip(results.large, results.large_of, strict=True) if value == digest]


def _without(results: pb.Results, attempts: set[int]) -> pb.Results:
    """Return the report without the values and child nodes of these attempts."""
    kept = [index for index, attempt in enumerate(results.attempt) if attempt not in attempts]
    moved = {index: at for at, index in enumerate(kept)}
    large = [(value, moved[of]) for value, of in zip(results.large, results.large_of, strict=True) if of in moved]
    rest = pb.Results(
        node=[results.node[index] for index in kept],
        attempt=[results.attempt[index] for index in kept],
        value=[results.value[index] for index in kept],
        microseconds=[results.microseconds[index] for index in kept],
        foreign=results.foreign,
        functions=results.functions,
        children=[child for child in results.children if child.attempt not in attempts],
        failures=[failure for failure in results.failures if failure.attempt not in attempts],
        large=[value for value, _ in large],
        large_of=[of for _, of in large],
        logs=results.logs,
        reports=results.reports,
    )
    if results.ref_count:
        starts = list(accumulate(results.ref_count, initial=0))
        rest.ref_count.extend([results.ref_count[index] for index in kept])
        rest.ref.extend([ref for index in kept for ref in results.ref[starts[index] : starts[index + 1]]])
    return rest
