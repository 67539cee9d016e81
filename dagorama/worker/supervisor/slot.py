"""One slot as the supervisor sees it: its child, and the nodes that the child was given and has not answered.

Nodes are numbered as in `shared_memory`: the first node given to the current child has ordinal 0. Bodies are never
opened.
"""

import socket
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress

from dagorama.api import broker_pb2 as pb
from dagorama.worker.failures import describe, timeout_error
from dagorama.worker.frames import FrameReader, Kind, pack_attempt, prefix
from dagorama.worker.shared_memory import RING, SlotMemory
from dagorama.worker.supervisor.session import Held

READ_BYTES = 1 << 20


@dataclass(slots=True)
class _Frame:
    """Bytes for the child. They are written when the large values that they need are available."""

    data: memoryview
    needs: set[bytes]


@dataclass(frozen=True, slots=True)
class _Pin:
    """Large values that stay in the spool until every node up to this ordinal was answered."""

    ordinal: int
    values: Sequence[bytes]


class Slot:
    """A place for one child at a time, and the nodes that the child holds."""

    def __init__(self, number: int, memory: SlotMemory) -> None:
        self.number = number
        self.pid = 0  #: the child's process ID; 0 if there is no child
        self.ready = False  #: the child can run nodes
        self.closed = False  #: no nodes are accepted and no new child is started
        self.refusals = 0  #: forks in a row that the system has refused
        self.is_held_up = False  #: the socket is full: the child does not read at the moment
        self.stopped = ""  #: why the supervisor killed the child; then its exit does not count as a crash
        self.dump, self.output = memory.dump, memory.output
        self._memory = memory
        self._socket: socket.socket | None = None
        self._reader = FrameReader()
        self._given = 0
        self._ordinals: dict[int, int] = {}  # by attempt, in the order of the grants
        self._nodes: dict[int, int] = {}  # by attempt
        self._timeouts: dict[int, float] = {}  # by attempt, for nodes with a timeout
        self._final: set[int] = set()  # attempts that are not retried if they exceed their timeout
        self._late: set[int] = set()  # attempts that exceeded their timeout
        self._frames: deque[_Frame] = deque()
        self._pins: deque[_Pin] = deque()
        self._in_pieces = False  # the child has received the first pieces of a grant, but not the last one
        self.broken = False  #: that child has exited, so the other pieces of the grant are useless

    # --- the child -----------------------------------------------------------------------------------

    def start(self, pid: int, connection: socket.socket, defined: Iterable[bytes] = ()) -> None:
        """Take a new child. Queued frames can be written from now on, after the parcels of `defined` classes."""
        self._frames.extendleft(map(_definitions, reversed(list(defined))))
        connection.setblocking(False)
        self.pid, self._socket, self.refusals = pid, connection, 0
        self.is_held_up = False

    def define(self, parcel: bytes) -> None:
        """Queue a parcel of classes for the child."""
        self._frames.append(_definitions(parcel))

    def ask_for_stack(self, attempt: int) -> None:
        """Queue a question for the stack of the coroutine of an async node; `dump.coroutine` gets the answer."""
        self._frames.append(_Frame(memoryview(pack_attempt(Kind.STACK, attempt)), set()))

    def fileno(self) -> int:
        """Return the descriptor of the socket, or -1 if it is closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def close(self) -> None:
        """Close the socket, so that an idle child exits by itself."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def reset(self) -> list[bytes]:
        """Forget a child that has exited; call `losses` first. Return the large values that its nodes had pinned."""
        self.close()
        for column in (self._ordinals, self._nodes, self._timeouts, self._final, self._late, self._frames):
            column.clear()
        unpinned = self.unpinned()
        self.pid, self.ready, self.stopped, self._given = 0, False, "", 0
        self._reader = FrameReader()
        self.broken, self._in_pieces = self.broken or self._in_pieces, False
        self._memory.reset()
        return unpinned

    def read(self) -> list[tuple[Kind, bytes]] | None:
        """Return the received frames without waiting; None if the child has closed its end."""
        if self._socket is None:
            return None
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            return None
        return self._reader.feed(data) if data else None

    def read_out(self) -> list[tuple[Kind, bytes]]:
        """Return the frames that a child wrote before it exited. A process that it forked may keep its end open."""
        frames: list[tuple[Kind, bytes]] = []
        with suppress(BlockingIOError, ConnectionResetError):
            while self._socket is not None and (data := self._socket.recv(READ_BYTES)):
                frames += self._reader.feed(data)
        return frames

    def write(self) -> bool:
        """Write as much as possible without waiting. Return True if the rest waits only for the child to read."""
        while self._socket is not None and self._frames and not self._frames[0].needs:
            frame = self._frames[0]
            try:
                sent = self._socket.send(frame.data)
            except BlockingIOError:
                return True
            except (BrokenPipeError, ConnectionResetError):  # it has exited: the fork server will report that
                return False
            frame.data = frame.data[sent:]
            if not frame.data:
                self._frames.popleft()
        return False

    # --- nodes ---------------------------------------------------------------------------------------

    @property
    def held(self) -> Held:
        """All nodes that the slot holds."""
        return Held(self.number, list(self._nodes.values()), list(self._nodes))

    def holds(self, attempt: int) -> bool:
        """Return whether the slot holds an attempt."""
        return attempt in self._nodes

    def node_of(self, attempt: int) -> int:
        """Return the node of an attempt that the slot holds."""
        return self._nodes[attempt]

    def running_entry(self, attempt: int) -> tuple[int, int, int] | None:
        """Return the process that runs an attempt, its entry (0: a sync node) and its start; None: it does not run."""
        ordinal = self._ordinals.get(attempt)
        found = next((node for node in self._memory.entries() if node.ordinal == ordinal), None)
        return None if found is None else (self.pid, found.entry, found.since)

    def __len__(self) -> int:
        """Return the number of nodes that the slot holds."""
        return len(self._nodes)

    def give(self, grant: pb.Grant, needs: set[bytes]) -> pb.Return | None:
        """Queue a grant, or a piece of one, for the child. Return nodes for which there is no room.

        `needs` are large values that are not available yet; call `arrived` for each of them later.
        """
        if self.broken or not self._has_room(len(grant.attempt)):
            self.broken = not grant.last
            return pb.Return(node=grant.node, attempt=grant.attempt) if grant.last else None
        count = len(grant.attempt)
        self._memory.open(self._given, count)
        self._ordinals.update(zip(grant.attempt, range(self._given, self._given + count), strict=True))
        self._nodes.update(zip(grant.attempt, grant.node, strict=True))
        if grant.timeout:
            self._timeouts.update(pair for pair in zip(grant.attempt, grant.timeout, strict=True) if pair[1])
        if grant.timeout_is_final:
            self._final.update(compress(grant.attempt, grant.timeout_is_final))
        self._given += count
        if grant.large:
            self._pins.append(_Pin(self._given - 1, list(grant.large)))
        self._in_pieces = not grant.last
        kind = Kind.GRANT if grant.last else Kind.PIECE
        self._frames.append(_Frame(memoryview(prefix(kind, len(grant.body)) + grant.body), needs))
        return None

    def _has_room(self, count: int) -> bool:
        oldest = next(iter(self._ordinals.values()), self._given)
        return not self.closed and self._given + count - oldest <= RING

    def arrived(self, value: bytes) -> None:
        """Note that a large value is available."""
        for frame in self._frames:
            frame.needs.discard(value)

    def answered(self, attempts: Iterable[int]) -> Held:
        """Remove answered attempts, and return the ones among them that were still held: only these are reported."""
        nodes = self._nodes
        known = [attempt for attempt in attempts if attempt in nodes]
        held = Held(self.number, [nodes.pop(attempt) for attempt in known], known)
        for attempt in known:
            del self._ordinals[attempt]
        if self._timeouts:
            for attempt in known:
                self._timeouts.pop(attempt, None)
                self._final.discard(attempt)
        return held

    def unpinned(self) -> list[bytes]:
        """Return the pinned large values that no remaining node needs."""
        oldest = next(iter(self._ordinals.values()), self._given)
        free: list[bytes] = []
        while self._pins and self._pins[0].ordinal < oldest:
            free.extend(self._pins.popleft().values)
        return free

    def take_back(self, attempts: Iterable[int] | None = None) -> pb.Return | None:
        """Take back the attempts (all if None) that have not started. Return None if it must be retried soon."""
        named = self._ordinals if attempts is None else {a: self._ordinals[a] for a in attempts if a in self._ordinals}
        taken = self._memory.take_back(named.values())
        if taken is None:
            return None
        by_ordinal = {ordinal: attempt for attempt, ordinal in named.items()}
        held = self.answered([by_ordinal[ordinal] for ordinal in taken])
        return pb.Return(node=held.nodes, attempt=held.attempts)

    def drop(self, attempts: Sequence[int]) -> None:
        """Remove attempts. The unstarted ones will not start."""
        self.take_back(attempts)
        self.answered(attempts)

    def cancel(self, attempts: Iterable[int]) -> list[int] | None:
        """Remove attempts. The unstarted ones will not start, and running ones are notified.

        Return the ordinals of the running ones, or None if it must be retried soon.
        """
        known = [attempt for attempt in attempts if attempt in self._ordinals]
        if self.take_back(known) is None:
            return None
        started = [self._ordinals[attempt] for attempt in known if attempt in self._ordinals]
        self.answered(known)
        return self._memory.cancel(started)

    def runs_any(self, ordinals: Sequence[int]) -> bool:
        """Return whether one of these nodes is running."""
        return any(ordinal in ordinals for ordinal, _ in self._memory.running())

    def overdue(self, now: float, grace: float) -> float | None:
        """Return the monotonic time at which the next node may exceed its timeout; `now` if a node has exceeded it.

        Async nodes end by themselves at their timeout, so `grace` seconds are added for them.
        """
        if not self._timeouts:
            return None
        running = {node.ordinal: node for node in self._memory.entries()}
        earliest = float("inf")
        for attempt, seconds in self._timeouts.items():
            node = running.get(self._ordinals[attempt])
            if node is None:  # it cannot start before now
                until = now + seconds
            else:
                until = node.since / 1e9 + seconds + (grace if node.entry else 0)
                if until <= now:
                    self._late.add(attempt)
            earliest = min(earliest, until)
        return max(now, earliest)

    def overrun(self) -> tuple[Held, pb.Results]:
        """Return the failures of nodes that exceeded their timeout, after their child was stopped and has exited."""
        failures = []
        for attempt in self.running():
            if attempt in self._late:
                seconds = self._timeouts[attempt]
                microseconds = min(int(seconds * 1e6), 2**32 - 1)
                failures.append(describe(timeout_error(seconds), self._nodes[attempt], attempt, microseconds))
                failures[-1].traceback = ""  # it is not known where the node was
                failures[-1].final = attempt in self._final
        return self.answered([failure.attempt for failure in failures]), pb.Results(failures=failures)

    def running(self) -> list[int]:
        """Return the running attempts, and the last ended ones whose results were not received."""
        by_ordinal = {ordinal: attempt for attempt, ordinal in self._ordinals.items()}
        return [by_ordinal[ordinal] for ordinal, _ in self._memory.running() if ordinal in by_ordinal]

    def lost_nodes(self, cause: str) -> tuple[Held, pb.SlotDeath]:
        """Return the nodes that an exited child held, and which of them were running.

        The node that ended last counts as running if its result was not received: it may be the cause of the crash.
        Earlier results that were not received are lost too, and their nodes simply run again.
        """
        running = self.running()
        were_running = set(running)
        unstarted = [attempt for attempt in self._ordinals if attempt not in were_running]
        return self.held, pb.SlotDeath(slot=self.number, running=running, unstarted=unstarted, cause=cause)


def _definitions(parcel: bytes) -> _Frame:
    return _Frame(memoryview(prefix(Kind.DEFINE, len(parcel)) + parcel), set())
