"""The stacks of children: asked for by the broker while a node runs, or written by a child that dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from dagorama.api import broker_pb2 as pb
from dagorama.worker.supervisor.session import Held, Session
from dagorama.worker.supervisor.slot import Slot

#: Seconds that a child has to write its stacks, and between two looks whether it has written more.
WRITE_TIMEOUT_S, LOOK_INTERVAL_S = 5.0, 0.02
TELL_TIMEOUT_S = 1.0  #: time for the child to send the stack of a coroutine
#: Of a stack in the log of a node: bytes, nodes that get it, and its place among the parts of the log.
MOST_LOGGED_BYTES, MOST_LOGS, LAST_SEQUENCE = 32 << 10, 10, 2**32 - 1
NOT_STARTED = "the worker holds the node, but has not started it: other nodes of the same process run before it"
ENDED = "the node has ended meanwhile"
SILENT = f"the process of the node has not written its stack within {WRITE_TIMEOUT_S:g} seconds: it may be suspended"
COROUTINE = "Coroutine of the node (most recent call first):"
ASYNC = "it is an async node: if it awaits something, its own stack is in none of these threads"


class Stacks:
    """Reads the stacks of children, one question at a time for each slot."""

    def __init__(
        self,
        slots: Sequence[Slot],
        session: Session,
        signal: Callable[[Slot], None],
        write: Callable[[Slot], None],
        on_change: Callable[[], None],
    ) -> None:
        """Call `signal` to make the child of a slot write its stacks, `write` to send what is queued for it."""
        self._write = write
        self._slots = slots
        self._session = session
        self._signal = signal
        self._on_change = on_change
        self._locks = {slot: asyncio.Lock() for slot in slots}
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, request: pb.StackRequest) -> None:
        """Answer a question of the broker soon."""
        task = asyncio.get_running_loop().create_task(self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: pb.StackRequest) -> None:
        reply = await self._reply(request.attempt)
        reply.number = request.number
        self._session.answer(reply)
        self._on_change()

    async def _reply(self, attempt: int) -> pb.StackReply:
        slot = next((slot for slot in self._slots if slot.holds(attempt)), None)
        if slot is None:
            return pb.StackReply(problem=ENDED)
        async with self._locks[slot]:
            before = slot.running_entry(attempt)
            if before is None or not slot.ready:
                return pb.StackReply(problem=NOT_STARTED if slot.holds(attempt) else ENDED)
            slot.dump.clear()
            if before[1]:
                slot.ask_for_stack(attempt)
                self._write(slot)
            self._signal(slot)
            is_written = await _written(slot)
            if before[1]:
                await _told(slot)
            # The child may have gone on to another node, or may be another one, before the signal reached it.
            if slot.running_entry(attempt) != before:
                return pb.StackReply(problem=ENDED)
            if not is_written:
                return pb.StackReply(problem=SILENT)
            stack, coroutine = slot.dump.read(), slot.dump.coroutine
            slot.dump.clear()  # what is in it when the child ends was written because it died
            if coroutine:
                return pb.StackReply(stack=f"{COROUTINE}\n{coroutine}\n\n{stack}")
            return pb.StackReply(stack=stack, note=ASYNC if before[1] else "")


async def _told(slot: Slot) -> None:
    """Wait until the child has sent the stack of the coroutine; it cannot if a node blocks its threads."""
    until = time.monotonic() + TELL_TIMEOUT_S
    while slot.dump.coroutine is None and time.monotonic() < until:
        await asyncio.sleep(LOOK_INTERVAL_S)


async def _written(slot: Slot) -> bool:
    """Wait until the child has written everything. Return False if it writes nothing."""
    until, size = time.monotonic() + WRITE_TIMEOUT_S, 0
    while time.monotonic() < until:
        await asyncio.sleep(LOOK_INTERVAL_S)
        before, size = size, slot.dump.size
        if size and size == before:
            return True
    return bool(size)


def last_stack(slot: Slot, stack: str) -> tuple[Held, pb.Results]:
    """Return a report with the stack of a child that has died, for the logs of the nodes that it ran."""
    now, text = int(time.time() * 1_000_000), stack.encode()[:MOST_LOGGED_BYTES]
    records = pb.LogRecords(record=[pb.LogRecord(time=now, source=pb.DEATH, text=text.rstrip(b"\n"))])
    body = records.SerializeToString()
    attempts, held = slot.running(), slot.held
    nodes = dict(zip(held.attempts, held.nodes, strict=True))
    logs = [
        pb.NodeLog(
            node=nodes[attempt],
            attempt=attempt,
            sequence=LAST_SEQUENCE,
            first=now,
            last=now,
            size=len(text),
            records=body,
        )
        for attempt in attempts[:MOST_LOGS]
    ]
    return Held(slot.number, [], []), pb.Results(logs=logs)
