"""The session of a worker with the broker: unsent, unacknowledged and acknowledged messages. No IO and no clock.

The session outlives its streams. A driver calls `open` for each new stream, `next_message` whenever there may be
something to send, and `receive` for every message of the broker. On a new stream, held nodes are presented and
unacknowledged reports are sent again; running nodes are not affected.
"""

import os
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.settings import WorkerOptions
from dagorama.worker.supervisor.proofs import Proofs, new_identity

PROTOCOL = 1
MESSAGE_BYTES = 3 << 20  #: a message that has reached this size is sent; gRPC refuses messages over 4 MiB

#: The longest pause between reconnects. A restarted broker waits 2 s for the workers that it had.
MAX_RECONNECT_PAUSE_S = 1.0

#: Names of statuses after which a retry is useless.
FINAL = frozenset({"INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"})


class Held(NamedTuple):
    """Attempts that the broker must still count as this worker's, in parallel lists."""

    slot: int
    nodes: Sequence[int]
    attempts: Sequence[int]


class _Item(NamedTuple):
    """A part of a message, and the attempts that it is about."""

    held: Held
    said: pb.Report | pb.Return | pb.SlotDeath


def hello(options: WorkerOptions, key_ids: Sequence[bytes], slots: int, until: pb.Until.ValueType) -> pb.Hello:
    """Return the hello of a new worker with a new identity. `until` tells when the broker declares its work done."""
    worker, secret = new_identity()
    return pb.Hello(
        protocol=PROTOCOL,
        worker=worker,
        secret=secret,
        name=options.name or f"{socket.gethostname()}:{os.getpid()}",
        include_queues=options.include_queues,
        exclude_queues=options.exclude_queues,
        tolerations=options.tolerations,
        key_ids=key_ids,
        slots=slots,
        until=until,
        shows_stacks=True,
        fuses_joins=True,
    )


class Session:
    """Everything that must reach the broker, on this stream or on a later one."""

    def __init__(self, hello: pb.Hello) -> None:
        self._hello = hello
        self._proofs = Proofs()
        self._sequence = 0
        self._reports: dict[int, _Item] = {}  # not acknowledged, by sequence number
        self._unsent: deque[_Item] = deque()
        self._opening = False
        self._beat = False
        self._stacks: list[pb.StackReply] = []
        self._closed: set[int] = set()  # slots, by number
        self._closed_said: set[int] = set()
        self._draining = False
        self._draining_said = False
        self.unacknowledged = 0  #: bytes of reports that the broker has not acknowledged
        self.welcome: pb.Welcome | None = None  #: the broker's answer to the hello on the current stream
        self.done = False  #: the broker has declared the work done

    # --- what is sent ---

    def report(self, held: Held, body: bytes) -> None:
        """Send a serialized Results, again on each new stream until the broker has stored it."""
        self._sequence += 1
        item = _Item(held, pb.Report(sequence=self._sequence, body=body, slot=held.slot))
        self._reports[self._sequence] = item
        self._unsent.append(item)
        self.unacknowledged += _size(item.said)

    def give_back(self, slot: int, returned: pb.Return) -> None:
        """Return nodes to the broker."""
        self._unsent.append(_Item(Held(slot, returned.node, returned.attempt), returned))

    def died(self, held: Held, death: pb.SlotDeath) -> None:
        """Report the crash of a child."""
        self._unsent.append(_Item(held, death))

    def close_slot(self, number: int) -> None:
        """Report that a slot is closed, on this stream after the slot's reports, and on every later stream."""
        self._closed.add(number)

    def answer(self, stack: pb.StackReply) -> None:
        """Answer a question for a stack, unless the stream on which it came has ended."""
        self._stacks.append(stack)

    def beat(self) -> None:
        """Send a heartbeat."""
        self._beat = True

    def drain(self) -> None:
        """Ask the broker for no more nodes, on this stream and on every later one."""
        self._draining = True

    @property
    def draining(self) -> bool:
        """True if `drain` was called."""
        return self._draining

    @property
    def has_said_draining(self) -> bool:
        """True if this stream has sent that the worker drains, or if there is no welcomed stream to send it on."""
        return self._draining_said or self.welcome is None

    @property
    def reported(self) -> int:
        """The number of reports so far."""
        return self._sequence

    @property
    def settled(self) -> bool:
        """True if everything was sent, and the broker has acknowledged all reports."""
        return not self._reports and not self._unsent

    # --- the stream ---

    def open(self, held: Iterable[Held]) -> None:
        """Begin a new stream: present `held` and the unacknowledged attempts, and send the latter again."""
        others = [item for item in self._unsent if not isinstance(item.said, pb.Report)]
        self._unsent = deque([*self._reports.values(), *others])
        del self._hello.held_node[:], self._hello.held_attempt[:], self._hello.held_slot[:]
        for slot, nodes, attempts in [*held, *(item.held for item in self._unsent)]:
            self._hello.held_node.extend(nodes)
            self._hello.held_attempt.extend(attempts)
            self._hello.held_slot.extend([slot] * len(attempts))
        del self._hello.grants[:]
        self._hello.grants.extend(self._proofs.presented(set(self._hello.held_attempt)))
        self._opening = True
        self._stacks.clear()
        self._draining_said = False
        self._closed_said = set()
        self.welcome = None

    def next_message(self) -> pb.WorkerMessage | None:
        """Return the next message, up to the size limit; None if there is nothing to send."""
        if self._opening:
            self._opening = False
            return pb.WorkerMessage(hello=self._hello)
        is_new = self._draining != self._draining_said or self._closed != self._closed_said
        if not (self._unsent or self._beat or self._stacks or is_new):
            return None
        message = pb.WorkerMessage(heartbeat=self._beat, draining=self._draining and not self._draining_said)
        self._beat, self._draining_said = False, self._draining
        self._fill(message)
        if self._stacks:
            message.stacks.append(self._stacks.pop(0))
        return message

    def _fill(self, message: pb.WorkerMessage) -> None:
        room = MESSAGE_BYTES
        while self._unsent and (room == MESSAGE_BYTES or _size(self._unsent[0].said) <= room):
            said = self._unsent.popleft().said
            room -= _size(said)
            if isinstance(said, pb.Report):
                message.reports.append(said)
            elif isinstance(said, pb.Return):
                message.returns.append(said)
            else:
                message.deaths.append(said)
        if not self._unsent:
            message.closed_slots.extend(sorted(self._closed - self._closed_said))
            self._closed_said = set(self._closed)

    def receive(self, message: pb.BrokerMessage) -> None:
        """Process welcome, acknowledgements and proofs. The driver processes grants, take-backs and refusals."""
        if message.HasField("welcome"):
            self.welcome = message.welcome
        self.done = self.done or message.done
        self._proofs.note(message.grants)
        if message.acknowledged:
            self._acknowledge(message.acknowledged)

    @property
    def keeps_too_much(self) -> bool:
        """True if `tidy` must be called, because many proofs are no longer needed."""
        return self._proofs.overgrown

    def tidy(self, held: Iterable[Held]) -> None:
        """Forget the proofs of grants without attempts that are held, unsent or unacknowledged."""
        items = [*self._reports.values(), *self._unsent]
        together = [*held, *(item.held for item in items)]
        self._proofs.forget_all_but({attempt for each in together for attempt in each.attempts})

    def _acknowledge(self, sequence: int) -> None:
        while (first := next(iter(self._reports), sequence + 1)) <= sequence:
            self.unacknowledged -= _size(self._reports.pop(first).said)


def _size(said: pb.Report | pb.Return | pb.SlotDeath) -> int:
    return len(said.body) + 16 if isinstance(said, pb.Report) else said.ByteSize()


class Backoff:
    """Pauses between connection attempts: doubled each time up to a limit, with jitter."""

    def __init__(self, first: float = 0.05, cap: float = 5.0) -> None:
        self._first, self._cap = first, cap
        self._next = first

    def pause(self, chance: float) -> float:
        """Return the seconds to wait; `chance` is a random number between 0 and 1."""
        pause, self._next = self._next, min(self._next * 2, self._cap)
        return pause * (0.5 + chance / 2)

    def reset(self) -> None:
        """Start again with the shortest pause."""
        self._next = self._first
