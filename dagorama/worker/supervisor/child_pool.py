"""The child processes of one supervisor: start them, replace them when they exit, and report the nodes they lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.logging import get_logger
from dagorama.settings import captures_logs
from dagorama.worker.supervisor.child_io import ChildIO, ChildMessages
from dagorama.worker.supervisor.fork_server import Ended, ForkServer, Refused, Started, cause_of, death_of
from dagorama.worker.supervisor.granted_nodes import GrantedNodes
from dagorama.worker.supervisor.session import Held, Session
from dagorama.worker.supervisor.slot import Slot
from dagorama.worker.supervisor.spool import Spool
from dagorama.worker.supervisor.stacks import last_stack
from dagorama.worker.supervisor.transfers import Transfers

FAILED, UNUSABLE, LEFT = 1, 2, 3  #: exit codes
FORK_RETRY_DELAY_S = 1.0  #: delay of a retry after the system has refused a fork
MAX_FORK_ATTEMPTS = 5  #: refused forks in a row after which a slot is closed, if there are other slots
MAX_STARTUP_FAILURES = 3  #: children in a row that exit before they are ready, after which the worker exits


class PoolEvents(NamedTuple):
    """Callbacks for events of the child processes."""

    on_ready: Callable[[str], None]  #: a child can run nodes; the names of the definitions that it has loaded
    on_returned: Callable[[pb.Return], None]  #: a child returned nodes that it cannot run
    on_change: Callable[[], None]  #: something can be sent to the broker, or a wait may be over
    on_started: Callable[[int, int], None]  #: slot and pid of a new child
    on_ended: Callable[[int, int], None]  #: slot that has no child any longer, and the exit code of the last one
    on_died: Callable[[str], None]  #: a child exited that was not told to, in a word
    on_fatal: Callable[[int, str], None]  #: the worker must exit with this code, and why


class ChildPool:
    """The children of all slots."""

    def __init__(
        self,
        slots: Sequence[Slot],
        fork_server: ForkServer,
        session: Session,
        transfers: Transfers,
        spool: Spool,
        events: PoolEvents,
    ) -> None:
        self.slots = slots
        self._fork_server = fork_server
        self._session = session
        self._spool = spool
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._startup_failures = 0
        self._defined: list[bytes] = []  # parcels of classes, for children that start later
        messages = ChildMessages(self._on_ready, self._on_unfit, events.on_returned, events.on_change)
        self.io = ChildIO(slots, session, transfers, spool, messages)
        self.nodes = GrantedNodes(slots, session, transfers, spool, self.io, self.kill, events.on_change)

    def start(self) -> None:
        """Start a child for each slot."""
        self._loop.add_reader(self._fork_server, self._on_fork_server)
        for slot in self.slots:
            self._fork_server.fork(slot.number)

    @property
    def held(self) -> list[Held]:
        """Attempts that the broker must still count as this worker's, apart from the ones in the session."""
        return [slot.held for slot in self.slots] + self.io.held

    @property
    def idle(self) -> bool:
        """True if no nodes are held, and no outcomes wait for large values."""
        return not any(map(len, self.slots)) and not self.io.held

    @property
    def alive(self) -> bool:
        """True if at least one child is running."""
        return any(slot.pid for slot in self.slots)

    def define(self, parcel: bytes) -> None:
        """Send these classes to every child, before any later node."""
        self._defined.append(parcel)
        for slot in self.slots:
            if slot.pid:
                slot.define(parcel)
                self.io.write(slot)

    # --- shutdown -------------------------------------------------------------------------------------

    def close(self, slot: Slot) -> None:
        """Take no more nodes for this slot. Unstarted nodes are returned; running ones may finish."""
        slot.closed = True
        self.nodes.return_unstarted(slot)

    @property
    def running(self) -> int:
        """The number of nodes that run."""
        return sum(len(slot.running()) for slot in self.slots)

    def kill_busy(self) -> None:
        """Kill the children that hold nodes."""
        for slot in self.slots:
            if len(slot):
                self.kill(slot)

    def end(self, slot: Slot) -> None:
        """Close the slot and kill its child. The broker is told when the child has exited."""
        self.close(slot)
        self.kill(slot)
        if not slot.pid:
            self._gone(slot)

    def kill(self, slot: Slot) -> None:
        """Kill the child of the slot."""
        if slot.pid:
            self._fork_server.kill(slot.pid)

    def dump(self, slot: Slot) -> None:
        """Make the child of the slot write its stacks into the slot's file."""
        if slot.pid:
            self._fork_server.dump(slot.pid)

    def send_off(self) -> None:
        """Close all sockets, so that idle children exit by themselves."""
        for slot in self.slots:
            self.io.stop(slot)
            slot.close()

    def _gone(self, slot: Slot) -> None:
        """Tell the broker that the slot is closed, unless the whole worker is shutting down."""
        if not self._session.draining:
            self._session.close_slot(slot.number)
        self._events.on_change()

    # --- events ---------------------------------------------------------------------------------------

    def _on_ready(self, definitions: str) -> None:
        self._startup_failures = 0
        self._events.on_ready(definitions)

    def _on_unfit(self, why: str) -> None:
        self._events.on_fatal(UNUSABLE, why)

    def _on_fork_server(self) -> None:
        event = self._fork_server.read()
        if isinstance(event, Started):
            self._welcome(self.slots[event.slot], event)
        elif isinstance(event, Ended):
            self._bury(self.slots[event.slot], event)
        elif isinstance(event, Refused):
            self._do_without(self.slots[event.slot], os.strerror(event.errno))
        else:
            self._lose_all()
        self._events.on_change()

    def _welcome(self, slot: Slot, started: Started) -> None:
        slot.start(started.pid, started.socket, self._defined)
        self._events.on_started(slot.number, started.pid)
        if slot.closed:
            slot.close()  # there are no nodes for it
            return
        self.io.start(slot)

    def _bury(self, slot: Slot, ended: Ended) -> None:
        self.io.finish(slot)
        how, death = slot.stopped or cause_of(ended), death_of(ended, slot.stopped)
        self._report_last_stack(slot)
        self._report_overrun(slot)
        if len(slot):
            self._mourn(slot, how)
        self._startup_failures += not slot.ready
        self._spool.release(slot.reset())
        self._spool.count_unreported(ended.pid)
        if slot.closed:
            self._gone(slot)
            self._events.on_ended(slot.number, os.waitstatus_to_exitcode(ended.status))
        else:
            get_logger().warning("child process %d of the worker: %s", ended.pid, how)
            self._events.on_died(death)
            self._replace(slot)

    def _report_last_stack(self, slot: Slot) -> None:
        """Print what the process wrote when it died of a fatal signal, and add it to the logs of its nodes."""
        stack = slot.dump.read()
        slot.dump.clear()
        if stack and not slot.stopped:
            print(stack, file=sys.stderr, flush=True)
            if captures_logs():
                held, results = last_stack(slot, stack)
                self._session.report(held, results.SerializeToString())

    def _report_overrun(self, slot: Slot) -> None:
        held, results = slot.overrun()
        if results.failures:
            self._session.report(held, results.SerializeToString())

    def _mourn(self, slot: Slot, cause: str) -> None:
        held, death = slot.lost_nodes(cause)
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
        if self._startup_failures >= MAX_STARTUP_FAILURES:
            self._events.on_fatal(FAILED, "its child processes exit before they are ready")
            return
        self._fork_server.fork(slot.number)

    def _do_without(self, slot: Slot, problem: str) -> None:
        """Retry a fork that the system refused. After several refusals close the slot, if there are others."""
        slot.refusals += 1
        others = [other for other in self.slots if other is not slot and not other.closed]
        if slot.refusals < MAX_FORK_ATTEMPTS or not others or slot.closed:
            get_logger().warning("cannot start a child process (%s); retrying", problem)
            self._loop.call_later(FORK_RETRY_DELAY_S, self._replace, slot)
            return
        get_logger().warning("cannot start a child process (%s); continuing with fewer", problem)
        self.close(slot)
        self._gone(slot)
        self._events.on_ended(slot.number, FAILED)

    def _lose_all(self) -> None:
        """Exit: the fork server has exited, and its children with it."""
        self._loop.remove_reader(self._fork_server)
        self._events.on_fatal(FAILED, "the process that forks its children has exited")
        for slot in self.slots:
            slot.closed = True
            if slot.pid:
                self._bury(slot, Ended(slot.number, slot.pid, signal.SIGKILL, 0))
