"""Forward outcomes with large values.

A report that names a refused value is changed: the attempts that need the value fail, the other attempts keep their
results. If an object store does not answer for too long, the attempts are returned uncounted instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from dagorama.api import broker_pb2 as pb
from dagorama.logging import get_logger
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.supervisor.reduced_reports import split_by_value, waiting_report, without_value
from dagorama.worker.supervisor.session import Held
from dagorama.worker.supervisor.spool import Spool
from dagorama.worker.supervisor.transfers import StoreAway, Transfers, ValueRefused


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
        named = outcome.waiting
        outcome = outcome._replace(
            large=[each for each in outcome.large if not self._transfers.is_left(named.get(each, b""))]
        )
        if not outcome.large and not self._waiting:
            self._forward(kind, held, outcome.body)
            return
        self._spool.hold(outcome.large)
        sending = [
            self._transfers.send(digest, named.get(digest, b""), partial(self._tell, held.slot, outcome, digest))
            for digest in outcome.large
        ]
        self._waiting.append((kind, held, outcome, sending))
        if self._task is None:
            self._task = asyncio.ensure_future(self._send_all())

    @property
    def held(self) -> list[Held]:
        """The attempts whose outcomes wait for large values."""
        return [held for _, held, _, _ in self._waiting]

    def _tell(self, slot: int, outcome: Outcome, digest: bytes, problem: str) -> None:
        """Report that attempts have ended and wait for the object store."""
        self._forward(Kind.RESULTS, Held(slot, [], []), waiting_report(outcome, digest, problem))

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
                except StoreAway as problem:
                    outcome, returned = split_by_value(outcome, digest, str(problem))
                    held = self._give_back(held, returned)
            self._waiting.popleft()
            self._spool.release(large)
            self._forward(kind, held, outcome.body)
        self._task = None

    def _give_back(self, held: Held, returned: pb.Return) -> Held:
        """Give attempts back; return the others."""
        gone = set(returned.attempt)
        if gone:
            self._forward(Kind.RETURN, Held(held.slot, returned.node, returned.attempt), returned.SerializeToString())
        kept = [(node, attempt) for node, attempt in zip(held.nodes, held.attempts, strict=True) if attempt not in gone]
        return Held(held.slot, [node for node, _ in kept], [attempt for _, attempt in kept])
