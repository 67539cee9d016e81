"""The sockets of the children: write queued frames, read outcomes and forward them. Bodies are never opened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.settings import captures_logs
from dagorama.worker.frames import Kind, unpack_outcome
from dagorama.worker.supervisor.forwarder import Forwarder
from dagorama.worker.supervisor.outputs import Outputs
from dagorama.worker.supervisor.session import Held, Session
from dagorama.worker.supervisor.slot import Slot
from dagorama.worker.supervisor.spool import Spool
from dagorama.worker.supervisor.transfers import Transfers

MAX_UNACKNOWLEDGED_BYTES = 64 << 20  #: children are not read while the broker has more results to acknowledge


class ChildMessages(NamedTuple):
    """Callbacks for messages of the children."""

    on_ready: Callable[[str], None]  #: a child can run nodes; the names of the definitions that it has loaded
    on_unfit: Callable[[str], None]  #: a child cannot start, and why
    on_returned: Callable[[pb.Return], None]  #: a child returned nodes that it cannot run
    on_change: Callable[[], None]  #: something can be sent to the broker, or a wait may be over


class ChildIO:
    """Reads from and writes to the children of all slots, in the event loop."""

    def __init__(
        self, slots: Sequence[Slot], session: Session, transfers: Transfers, spool: Spool, messages: ChildMessages
    ) -> None:
        self._session = session
        self._spool = spool
        self._messages = messages
        self._forwarders = [Forwarder(transfers, spool, self._forward) for _ in slots]
        self._loop = asyncio.get_running_loop()
        self._outputs = Outputs(slots, session, captures_logs())
        self._paused: set[Slot] = set()  # not read until the broker has acknowledged more results

    @property
    def held(self) -> list[Held]:
        """Attempts whose outcomes wait for large values to be sent."""
        return [held for each in self._forwarders for held in each.held]

    def write(self, slot: Slot) -> None:
        """Write the queued frames of a slot now, and the rest when its socket becomes writable."""
        held_up = slot.write()
        if slot.fileno() < 0 or held_up == slot.is_held_up:
            return
        slot.is_held_up = held_up
        if held_up:
            self._loop.add_writer(slot, self.write, slot)
        else:
            self._loop.remove_writer(slot)

    def start(self, slot: Slot) -> None:
        """Start to read from and write to a new child."""
        self._loop.add_reader(slot, self._on_readable, slot)
        self.write(slot)

    def stop(self, slot: Slot) -> None:
        """Stop reading from and writing to a child."""
        if slot.fileno() >= 0:
            self._loop.remove_reader(slot)
            self._loop.remove_writer(slot)
            slot.is_held_up = False

    def finish(self, slot: Slot) -> None:
        """Read everything that a child has written before it exited."""
        self._outputs.finish(slot)
        self._receive(slot, slot.read_out())
        self.stop(slot)
        self._paused.discard(slot)

    def resume(self) -> None:
        """Read paused children again if the broker has acknowledged enough results."""
        while self._paused and self._session.unacknowledged < MAX_UNACKNOWLEDGED_BYTES:
            slot = self._paused.pop()
            if slot.fileno() >= 0:
                self._loop.add_reader(slot, self._on_readable, slot)

    def _on_readable(self, slot: Slot) -> None:
        frames = slot.read()
        if frames is None:
            self.stop(slot)  # the fork server will report how the child exited
            return
        self._receive(slot, frames)
        if self._session.unacknowledged > MAX_UNACKNOWLEDGED_BYTES:
            self.stop(slot)
            self._paused.add(slot)

    def _receive(self, slot: Slot, frames: list[tuple[Kind, bytes]]) -> None:
        for kind, payload in frames:
            if kind == Kind.READY:
                slot.ready = True
                self._messages.on_ready(payload.decode())
            elif kind == Kind.UNFIT:
                self._messages.on_unfit(payload.decode())
            elif kind == Kind.STACK:
                slot.dump.coroutine = unpack_outcome(payload).body.decode()
            else:
                self._receive_outcome(slot, kind, payload)
        self._messages.on_change()

    def _receive_outcome(self, slot: Slot, kind: Kind, payload: bytes) -> None:
        outcome = unpack_outcome(payload)
        self._outputs.end(outcome.attempts)
        held = slot.answered(outcome.attempts)
        self._spool.release(slot.unpinned())
        # An outcome without attempts holds child nodes that are sent ahead of their attempt's own outcome. If an
        # outcome names attempts of which none is held any longer, the broker has cancelled or refused them.
        if held.attempts or not outcome.attempts:
            self._forwarders[slot.number].take(kind, held, outcome)

    def _forward(self, kind: Kind, held: Held, body: bytes) -> None:
        if kind == Kind.RESULTS:
            self._session.report(held, body)
        else:
            returned = pb.Return.FromString(body)
            self._messages.on_returned(returned)
            self._session.give_back(held.slot, returned)
        self._messages.on_change()
