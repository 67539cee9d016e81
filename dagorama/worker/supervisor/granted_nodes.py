"""Nodes granted to the slots: give them to the children, take them back, cancel them, stop them at their timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from dagorama.api import broker_pb2 as pb
from dagorama.logging import get_logger
from dagorama.worker.supervisor.child_io import ChildIO
from dagorama.worker.supervisor.reduced_reports import report_of
from dagorama.worker.supervisor.session import Held, Session
from dagorama.worker.supervisor.slot import Slot
from dagorama.worker.supervisor.spool import Spool
from dagorama.worker.supervisor.transfers import StoreAway, Transfers

DEFAULT_CANCEL_GRACE_S = 5.0  #: used until the broker has sent its own value
LOCK_RETRY_DELAY_S = 0.002  #: delay of a retry if a child was stopped while it held its slot's lock


class Incomprehensible(Exception):
    """The broker sent a message that makes no sense here. The message of the exception says what it named."""


class GrantedNodes:
    """Carries out what the broker says about nodes.

    `kill` kills the child of a slot; `on_change` is called when there is something to send to the broker.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        session: Session,
        transfers: Transfers,
        spool: Spool,
        io: ChildIO,
        kill: Callable[[Slot], None],
        on_change: Callable[[], None],
    ) -> None:
        self._slots = slots
        self._session = session
        self._transfers = transfers
        self._spool = spool
        self._io = io
        self._kill = kill
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._fetches: set[asyncio.Task[None]] = set()
        self._deadline: asyncio.TimerHandle | None = None  # when the next node may exceed its timeout
        self.cancel_grace = DEFAULT_CANCEL_GRACE_S  #: seconds until a cancelled node that still runs is stopped

    def grant(self, grant: pb.Grant) -> None:
        """Give granted nodes to a child, as soon as their large values are available."""
        slot = self._slot(grant.slot)
        if len(grant.node) != len(grant.attempt):
            raise Incomprehensible("a grant with different numbers of nodes and attempts")
        needs: set[bytes] = set()
        if grant.large:
            needs.update(digest for digest in grant.large if not self._transfers.is_at_hand(digest))
            self._spool.hold(grant.large)
        returned = slot.give(grant, needs)
        if returned is not None:
            self._spool.release(grant.large)
            self._session.give_back(slot.number, returned)
            return
        for digest in needs:
            fetch = self._loop.create_task(self._fetch(digest, slot, list(grant.node), list(grant.attempt)))
            self._fetches.add(fetch)
            fetch.add_done_callback(self._fetches.discard)
        self._io.write(slot)
        if grant.timeout:
            self._check_deadlines()

    def take_back(self, number: int, attempts: Iterable[int]) -> None:
        """Return to the broker the attempts that have not started."""
        self.return_unstarted(self._slot(number), list(attempts))

    def return_unstarted(self, slot: Slot, attempts: list[int] | None = None) -> None:
        """Return to the broker the attempts of a slot (all of them if None) that have not started."""
        returned = slot.take_back(attempts)
        if returned is None:
            self._loop.call_later(LOCK_RETRY_DELAY_S, self.return_unstarted, slot, attempts)
        elif returned.attempt:
            self._spool.release(slot.unpinned())
            self._session.give_back(slot.number, returned)
            self._on_change()

    def drop(self, attempts: Iterable[int]) -> None:
        """Forget attempts that no longer belong to this worker. Results of running ones are discarded."""
        for slot in self._slots:
            slot.drop(list(attempts))
            self._spool.release(slot.unpinned())

    def cancel(self, attempts: Iterable[int]) -> None:
        """Forget cancelled attempts. Notify the running ones, and stop them after the grace period."""
        for slot in self._slots:
            self._cancel(slot, list(attempts))

    def _slot(self, number: int) -> Slot:
        if number >= len(self._slots):
            raise Incomprehensible(f"slot {number} of {len(self._slots)}")
        return self._slots[number]

    def _cancel(self, slot: Slot, attempts: list[int]) -> None:
        running = slot.cancel(attempts)
        if running is None:
            self._loop.call_later(LOCK_RETRY_DELAY_S, self._cancel, slot, attempts)
            return
        self._spool.release(slot.unpinned())
        if running:
            self._loop.call_later(self.cancel_grace, self._stop_cancelled, slot, slot.pid, running)
        self._on_change()

    async def _fetch(self, digest: bytes, slot: Slot, nodes: list[int], attempts: list[int]) -> None:
        def tell(problem: str) -> None:
            self._session.report(Held(slot.number, [], []), report_of(nodes, attempts, problem))
            self._on_change()

        try:
            await self._transfers.fetch(digest, tell)
        except StoreAway as problem:
            await self._give_back(slot, attempts, str(problem))
        slot.arrived(digest)  # the child skips nodes that were taken back
        self._io.write(slot)

    async def _give_back(self, slot: Slot, attempts: list[int], why: str) -> None:
        """Return nodes whose large values cannot be fetched, uncounted."""
        while (returned := slot.take_back(attempts)) is None:
            await asyncio.sleep(LOCK_RETRY_DELAY_S)
        if returned.attempt:
            returned.reason, returned.detail = pb.VALUES, why
            get_logger().warning("returned %d nodes: %s", len(returned.attempt), why)
            self._spool.release(slot.unpinned())
            self._session.give_back(slot.number, returned)
            self._on_change()

    def _stop(self, slot: Slot, why: str) -> None:
        """Kill a child because of one of its nodes. Its other nodes are returned uncounted, and a new child starts."""
        slot.stopped = why
        self._kill(slot)

    def _stop_cancelled(self, slot: Slot, pid: int, ordinals: list[int]) -> None:
        if slot.pid == pid and slot.runs_any(ordinals):
            self._stop(slot, "stopped because a cancelled node was still running")

    def _check_deadlines(self) -> None:
        """Stop children whose nodes exceed their timeout, and check again when the next node may do so."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        now = self._loop.time()  # time.monotonic()
        times = []
        for slot in self._slots:
            until = None if slot.stopped else slot.overdue(now, self.cancel_grace)
            if until == now:
                self._stop(slot, "stopped because a node exceeded its timeout")
            elif until is not None:
                times.append(until)
        if times:
            self._deadline = self._loop.call_at(min(times), self._check_deadlines)
