"""The children of one supervisor: fed, read, taken back from, buried and replaced. Bodies go through unopened."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable
from typing import Protocol

from dagorama.api import broker_pb2 as pb
from dagorama.logging import get_logger
from dagorama.worker.frames import Kind, unpack_outcome
from dagorama.worker.supervisor.fork_server import Ended, Nursery, Refused, Started
from dagorama.worker.supervisor.session import Held, Session
from dagorama.worker.supervisor.slot import Slot, cause_of
from dagorama.worker.supervisor.spool import Spool
from dagorama.worker.supervisor.transfers import Forwarder, Transfers

FAILED, UNUSABLE, LEFT = 1, 2, 3  #: exit codes
CANCEL_GRACE = 5.0  #: seconds, until the broker says how many
LOCKED = 0.002  #: seconds until a take-back is tried again where a child was stopped inside its lock
NO_ROOM = 1.0  #: seconds until a fork that the system refused is tried again
TRIES = 5  #: forks in a row that the system refuses, after which a slot is given up where there are others
STILLBORN = 3  #: children in a row that end before they are ready, after which the worker gives up
UNREPORTED_BYTES = 64 << 20  #: results that the broker has not acknowledged, beyond which children have to wait


class Incomprehensible(Exception):
    """The broker said something that makes no sense here; the message says what it spoke of."""


class Supervision(Protocol):
    """What the children's keeper has to know of the rest of the supervisor."""

    @property
    def code(self) -> int:
        """The worker's exit code, as far as it is known."""
        ...

    def ready(self, definitions: str) -> None:
        """A child can run nodes; the names of the definitions that it has already."""
        ...

    def gave_back(self, returned: pb.Return) -> None:
        """A child cannot run these nodes, or had not started them."""
        ...

    def changed(self) -> None:
        """There may be something to send, or to wait for no longer."""
        ...

    def ask_to_leave(self, code: int = 0, why: str = "") -> None: ...

    def tell(self, *words: object) -> None:
        """Something for whoever launched the worker."""
        ...


class Children:
    def __init__(
        self,
        slots: list[Slot],
        nursery: Nursery,
        session: Session,
        transfers: Transfers,
        spool: Spool,
        supervision: Supervision,
    ) -> None:
        self.slots = slots
        self._nursery = nursery
        self._session = session
        self._transfers = transfers
        self._spool = spool
        self._supervision = supervision
        self._forwarders = [Forwarder(transfers, spool, self._forward) for _ in slots]
        self._loop = asyncio.get_running_loop()
        self._fetches: set[asyncio.Task[None]] = set()
        self._paused: set[Slot] = set()  # not read until the broker has acknowledged more
        self._stillborn = 0
        self._deadlines: asyncio.TimerHandle | None = None  # when a node may have run over its timeout
        self._defined: list[bytes] = []  # parcels of classes, for children that start later
        self.cancel_grace = CANCEL_GRACE  #: seconds that a cancelled run has to end by itself

    def start(self) -> None:
        self._loop.add_reader(self._nursery, self._on_nursery)
        for slot in self.slots:
            self._nursery.fork(slot.number)

    @property
    def held(self) -> list[Held]:
        """All that the broker should still count as this worker's and the session knows nothing of."""
        return [slot.held for slot in self.slots] + [held for each in self._forwarders for held in each.held]

    @property
    def idle(self) -> bool:
        """Nothing is held, and nothing waits for an upload."""
        return not any(map(len, self.slots)) and not any(each.held for each in self._forwarders)

    @property
    def alive(self) -> bool:
        return any(slot.pid for slot in self.slots)

    # --- what the broker wants ------------------------------------------------------------------------

    def grant(self, grant: pb.Grant) -> None:
        slot = self._slot(grant.slot)
        if len(grant.node) != len(grant.attempt):
            raise Incomprehensible("a grant whose nodes and attempts do not fit together")
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
            fetch = self._loop.create_task(self._fetch(digest, slot))
            self._fetches.add(fetch)
            fetch.add_done_callback(self._fetches.discard)
        self._write(slot)
        if grant.timeout:
            self._check_deadlines()

    def define(self, parcel: bytes) -> None:
        """Let every child have these classes before it is given any later node."""
        self._defined.append(parcel)
        for slot in self.slots:
            if slot.pid:
                slot.define(parcel)
                self._write(slot)

    def share(self, folder: pb.ValuesFolderReply) -> None:
        """The broker says where large values are files."""
        self._transfers.share(folder)

    def _slot(self, number: int) -> Slot:
        if number >= len(self.slots):
            raise Incomprehensible(f"slot {number}, and there are {len(self.slots)}")
        return self.slots[number]

    def take_back(self, number: int, attempts: Iterable[int]) -> None:
        """Return those that have not started."""
        self._take_back(self._slot(number), list(attempts))

    def drop(self, attempts: Iterable[int]) -> None:
        """They are no longer this worker's: what runs of them runs in vain."""
        for slot in self.slots:
            slot.drop(list(attempts))
            self._spool.release(slot.unpinned())

    def cancel(self, attempts: Iterable[int]) -> None:
        """To the broker they have ended: what has not started never does, what runs is told, and stopped at last."""
        for slot in self.slots:
            self._cancel(slot, list(attempts))

    def acknowledged(self) -> None:
        """The broker has taken something; who was held up by that can be read again."""
        while self._paused and self._session.unacknowledged < UNREPORTED_BYTES:
            slot = self._paused.pop()
            if slot.fileno() >= 0:
                self._loop.add_reader(slot, self._on_child, slot)

    def _take_back(self, slot: Slot, attempts: list[int] | None = None) -> None:
        returned = slot.take_back(attempts)
        if returned is None:
            self._loop.call_later(LOCKED, self._take_back, slot, attempts)
        elif returned.attempt:
            self._spool.release(slot.unpinned())
            self._session.give_back(slot.number, returned)
            self._supervision.changed()

    def _cancel(self, slot: Slot, attempts: list[int]) -> None:
        running = slot.cancel(attempts)
        if running is None:
            self._loop.call_later(LOCKED, self._cancel, slot, attempts)
            return
        self._spool.release(slot.unpinned())
        if running:
            self._loop.call_later(self.cancel_grace, self._stop_cancelled, slot, slot.pid, running)
        self._supervision.changed()

    async def _fetch(self, digest: bytes, slot: Slot) -> None:
        await self._transfers.fetch(digest)
        slot.arrived(digest)
        self._write(slot)

    # --- stopping what runs ---------------------------------------------------------------------------

    def _stop(self, slot: Slot, why: str) -> None:
        """Kill its child for one of its nodes; the others come back uncounted, and another child follows."""
        slot.stopped = why
        self.kill(slot)

    def _stop_cancelled(self, slot: Slot, pid: int, ordinals: list[int]) -> None:
        if slot.pid == pid and slot.runs_any(ordinals):
            self._stop(slot, "stopped, for a cancelled node that went on")

    def _check_deadlines(self) -> None:
        """Stop what has run over its timeout, and look again when something else may have."""
        if self._deadlines is not None:
            self._deadlines.cancel()
            self._deadlines = None
        now = self._loop.time()  # time.monotonic()
        times = []
        for slot in self.slots:
            until = None if slot.stopped else slot.overdue(now, self.cancel_grace)
            if until == now:
                self._stop(slot, "stopped, for a node that ran over its timeout")
            elif until is not None:
                times.append(until)
        if times:
            self._deadlines = self._loop.call_at(min(times), self._check_deadlines)

    # --- leaving --------------------------------------------------------------------------------------

    def close(self, slot: Slot) -> None:
        """Nothing more for this slot: what has not started is returned, what runs may go on."""
        slot.closed = True
        self._take_back(slot)

    def end(self, slot: Slot) -> None:
        """Its child ends now and no other follows; the broker is told when that has ended."""
        self.close(slot)
        self.kill(slot)
        if not slot.pid:
            self._gone(slot)

    def kill(self, slot: Slot) -> None:
        """End its child now."""
        if slot.pid:
            self._nursery.kill(slot.pid)

    def send_off(self) -> None:
        """Let idle children leave by themselves."""
        for slot in self.slots:
            self._stop_reading(slot)
            slot.hang_up()

    # --- the children's sockets -----------------------------------------------------------------------

    def _write(self, slot: Slot) -> None:
        held_up = slot.write()
        if slot.fileno() < 0 or held_up == slot.is_held_up:
            return
        slot.is_held_up = held_up
        if held_up:
            self._loop.add_writer(slot, self._write, slot)
        else:
            self._loop.remove_writer(slot)

    def _on_child(self, slot: Slot) -> None:
        frames = slot.read()
        if frames is None:
            self._stop_reading(slot)  # the nursery will say how it ended
            return
        self._take(slot, frames)
        if self._session.unacknowledged > UNREPORTED_BYTES:
            self._stop_reading(slot)
            self._paused.add(slot)

    def _stop_reading(self, slot: Slot) -> None:
        if slot.fileno() >= 0:
            self._loop.remove_reader(slot)
            self._loop.remove_writer(slot)
            slot.is_held_up = False

    def _take(self, slot: Slot, frames: list[tuple[Kind, bytes]]) -> None:
        for kind, payload in frames:
            if kind == Kind.READY:
                slot.ready, self._stillborn = True, 0
                self._supervision.ready(payload.decode())
            elif kind == Kind.UNFIT:
                self._supervision.ask_to_leave(UNUSABLE, payload.decode())
            else:
                self._outcome(slot, kind, payload)
        self._supervision.changed()

    def _outcome(self, slot: Slot, kind: Kind, payload: bytes) -> None:
        outcome = unpack_outcome(payload)
        held = slot.answered(outcome.attempts)
        self._spool.release(slot.unpinned())
        # Only children that go ahead of their attempt's outcome name no attempt; those refused meanwhile are dropped.
        if held.attempts or not outcome.attempts:
            self._forwarders[slot.number].take(kind, held, outcome)

    def _forward(self, kind: Kind, held: Held, body: bytes) -> None:
        if kind == Kind.RESULTS:
            self._session.report(held, body)
        else:
            returned = pb.Return.FromString(body)
            self._supervision.gave_back(returned)
            self._session.give_back(held.slot, returned)
        self._supervision.changed()

    # --- the nursery ----------------------------------------------------------------------------------

    def _on_nursery(self) -> None:
        event = self._nursery.read()
        if isinstance(event, Started):
            self._welcome(self.slots[event.slot], event)
        elif isinstance(event, Ended):
            self._bury(self.slots[event.slot], event)
        elif isinstance(event, Refused):
            self._do_without(self.slots[event.slot], os.strerror(event.errno))
        else:
            self._lose_all()
        self._supervision.changed()

    def _do_without(self, slot: Slot, problem: str) -> None:
        """The system has refused a fork: it is tried again, but in the end others do this slot's work."""
        slot.refusals += 1
        others = [other for other in self.slots if other is not slot and not other.closed]
        if slot.refusals < TRIES or not others or slot.closed:
            get_logger().warning("no child process can be started (%s); trying again", problem)
            self._loop.call_later(NO_ROOM, self._replace, slot)
            return
        get_logger().warning("no child process can be started (%s); the worker goes on with fewer", problem)
        self.close(slot)
        self._gone(slot)
        self._supervision.tell("ended", slot.number, FAILED)

    def _gone(self, slot: Slot) -> None:
        """Nothing will come from this slot any more, while others go on."""
        if not self._session.draining:
            self._session.close_slot(slot.number)
        self._supervision.changed()

    def _lose_all(self) -> None:
        """The nursery has ended, and its children with it."""
        self._loop.remove_reader(self._nursery)
        self._supervision.ask_to_leave(FAILED, "the process that starts its children has ended")
        for slot in self.slots:
            slot.closed = True
            if slot.pid:
                self._bury(slot, Ended(slot.number, slot.pid, signal.SIGKILL, 0))

    def _welcome(self, slot: Slot, started: Started) -> None:
        slot.adopt(started.pid, started.socket, self._defined)
        self._supervision.tell("started", slot.number, started.pid)
        if slot.closed:
            slot.hang_up()  # there is nothing for it any more
            return
        self._loop.add_reader(slot, self._on_child, slot)
        self._write(slot)

    def _bury(self, slot: Slot, ended: Ended) -> None:
        self._take(slot, slot.read_out())
        self._stop_reading(slot)
        self._paused.discard(slot)
        how = slot.stopped or cause_of(ended)
        self._report_overrun(slot)
        if len(slot):
            self._mourn(slot, how)
        self._stillborn += not slot.ready
        self._spool.release(slot.buried())
        self._spool.adopt_strays(ended.pid)
        if slot.closed:
            self._gone(slot)
            code = os.waitstatus_to_exitcode(ended.status) or self._supervision.code
            self._supervision.tell("ended", slot.number, code)
        else:
            get_logger().warning("child process %d of the worker: %s", ended.pid, how)
            self._replace(slot)

    def _report_overrun(self, slot: Slot) -> None:
        held, results = slot.overrun()
        if results.failures:
            self._session.report(held, results.SerializeToString())

    def _mourn(self, slot: Slot, cause: str) -> None:
        held, death = slot.losses(cause)
        if not (slot.closed or slot.stopped):
            self._session.died(held, death)
            return
        nodes = dict(zip(held.attempts, held.nodes, strict=True))
        for reason, attempts in ((pb.INTERRUPTED, death.running), (pb.UNSTARTED, death.unstarted)):
            if attempts:
                of_attempts = [nodes[attempt] for attempt in attempts]
                self._session.give_back(slot.number, pb.Return(node=of_attempts, attempt=attempts, reason=reason))

    def _replace(self, slot: Slot) -> None:
        if slot.closed:
            return
        if self._stillborn >= STILLBORN:
            self._supervision.ask_to_leave(FAILED, "its children end before they are ready to work")
            return
        self._nursery.fork(slot.number)
