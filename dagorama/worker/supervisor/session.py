"""A worker's session with the broker: what was said, what is acknowledged, what must be said again. No IO, no clock.

The session outlives its streams. A driver opens one, asks `next_message` whenever there may be something to send,
gives `receive` every answer, and calls `open` again on the next stream: held nodes are presented, reports that were
not acknowledged go out once more, and nothing that runs is disturbed.
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
MESSAGE_BYTES = 3 << 20  #: a message is closed when it has this much; gRPC refuses one over 4 MiB

#: Statuses by name after which trying again is useless.
FINAL = frozenset({"INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"})


class Held(NamedTuple):
    """Attempts that the broker should still count as this worker's, in parallel lists."""

    slot: int
    nodes: Sequence[int]
    attempts: Sequence[int]


class _Item(NamedTuple):
    """Something to say, and the attempts that it speaks of."""

    held: Held
    said: pb.Report | pb.Return | pb.SlotDeath


def hello(options: WorkerOptions, key_ids: Sequence[bytes], slots: int, until: pb.Until.ValueType) -> pb.Hello:
    """Introduce a worker of this process, under a new identity; `until` says what it wants to be told of."""
    worker, secret = new_identity()
    return pb.Hello(
        protocol=PROTOCOL,
        worker=worker,
        secret=secret,
        name=f"{socket.gethostname()}:{os.getpid()}",
        include_queues=options.include_queues,
        exclude_queues=options.exclude_queues,
        tolerations=options.tolerations,
        key_ids=key_ids,
        slots=slots,
        until=until,
    )


class Session:
    def __init__(self, hello: pb.Hello) -> None:
        self._hello = hello
        self._proofs = Proofs()
        self._sequence = 0
        self._reports: dict[int, _Item] = {}  # those not acknowledged, by sequence
        self._unsent: deque[_Item] = deque()
        self._opening = False
        self._beat = False
        self._closed: set[int] = set()  # slots, by number
        self._closed_said: set[int] = set()
        self._draining = False
        self._draining_said = False
        self.unacknowledged = 0  #: bytes of reports that are kept until the broker has them
        self.welcome: pb.Welcome | None = None  #: the broker's answer on the present stream
        self.done = False  #: what `until` asked for has come

    # --- what the worker has to say ---

    def report(self, held: Held, body: bytes) -> None:
        """Forward a serialized Results; it is said again until the broker has made it durable."""
        self._sequence += 1
        item = _Item(held, pb.Report(sequence=self._sequence, body=body, slot=held.slot))
        self._reports[self._sequence] = item
        self._unsent.append(item)
        self.unacknowledged += _size(item.said)

    def give_back(self, slot: int, returned: pb.Return) -> None:
        self._unsent.append(_Item(Held(slot, returned.node, returned.attempt), returned))

    def died(self, held: Held, death: pb.SlotDeath) -> None:
        self._unsent.append(_Item(held, death))

    def close_slot(self, number: int) -> None:
        """It is gone for good; said on this stream, after what it had to say, and on any later one."""
        self._closed.add(number)

    def beat(self) -> None:
        self._beat = True

    def drain(self) -> None:
        """Ask for nothing more, on this stream and any later one."""
        self._draining = True

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def has_said_draining(self) -> bool:
        """This stream was told that nothing more is wanted; True if there is none that could be told."""
        return self._draining_said or self.welcome is None

    @property
    def settled(self) -> bool:
        """Nothing is left to say, and all that was reported is durable."""
        return not self._reports and not self._unsent

    # --- the stream ---

    def open(self, held: Iterable[Held]) -> None:
        """A new stream: present `held` and whatever has not come through, then say the latter again."""
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
        self._draining_said = False
        self._closed_said = set()
        self.welcome = None

    def next_message(self) -> pb.WorkerMessage | None:
        """All that may go now, up to what one message holds; None when there is nothing."""
        if self._opening:
            self._opening = False
            return pb.WorkerMessage(hello=self._hello)
        is_new = self._draining != self._draining_said or self._closed != self._closed_said
        if not (self._unsent or self._beat or is_new):
            return None
        message = pb.WorkerMessage(heartbeat=self._beat, draining=self._draining and not self._draining_said)
        self._beat, self._draining_said = False, self._draining
        self._fill(message)
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
        """Note what is the session's; grants, take-backs and refusals are the driver's."""
        if message.HasField("welcome"):
            self.welcome = message.welcome
        self.done = self.done or message.done
        self._proofs.note(message.grants)
        if message.acknowledged:
            self._acknowledge(message.acknowledged)

    @property
    def keeps_too_much(self) -> bool:
        """Whether it is time to call `tidy`."""
        return self._proofs.overgrown

    def tidy(self, held: Iterable[Held]) -> None:
        """Forget the proofs of grants of which nothing is in `held`, reported or about to be said."""
        items = [*self._reports.values(), *self._unsent]
        together = [*held, *(item.held for item in items)]
        self._proofs.forget_all_but({attempt for each in together for attempt in each.attempts})

    def _acknowledge(self, sequence: int) -> None:
        while (first := next(iter(self._reports), sequence + 1)) <= sequence:
            self.unacknowledged -= _size(self._reports.pop(first).said)


def _size(said: pb.Report | pb.Return | pb.SlotDeath) -> int:
    return len(said.body) + 16 if isinstance(said, pb.Report) else said.ByteSize()


class Backoff:
    """Pauses between attempts to reach the broker: doubling, capped, never in step with other workers."""

    def __init__(self, first: float = 0.05, cap: float = 5.0) -> None:
        self._first, self._cap = first, cap
        self._next = first

    def pause(self, chance: float) -> float:
        """Seconds to wait now; `chance` is between 0 and 1."""
        pause, self._next = self._next, min(self._next * 2, self._cap)
        return pause * (0.5 + chance / 2)

    def reset(self) -> None:
        self._next = self._first
