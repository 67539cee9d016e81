"""One client's open stream: it asks, any number of things at a time, and is answered as the answers come.

The rule: each ask counts as a call, one of them as the stream itself, and is answered as that call would be; none
waits for another. What needs nothing but memory, a commit or the end of a node is answered without a task of its own,
which is half of what it costs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TypeAlias

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import CALL_AGAIN, Broker
from dagorama_broker.engine.drafts import is_many
from dagorama_broker.errors import BrokerRefusal, Malformed, NotServing, StoreError
from dagorama_broker.rpc import costs
from dagorama_broker.rpc.limits import Kind, Place, Streams
from dagorama_broker.rpc.memory_guard import Memory, Reservation
from dagorama_broker.rpc.messages import PIECE, weight_of
from dagorama_broker.rpc.permissions import OURS, check_role
from dagorama_broker.rpc.status import refusal_message
from dagorama_broker.rpc.tokens import Token
from dagorama_broker.rpc.wait import More, Over, wait_at_once, wait_replies
from dagorama_broker.scheduler import NewRun

log = logging.getLogger("dagorama_broker")

ReadRuns = Callable[[list[pb.SubmitRequest]], list[NewRun]]
ReadMany = Callable[[list[pb.SubmitRequest]], Awaitable[list[NewRun]]]
Replies: TypeAlias = AsyncGenerator[pb.WaitReply, None]


class Answerer:
    """What asks of one caller are about."""

    def __init__(
        self, broker: Broker, runs_of: ReadRuns, read: ReadMany, token: Token | None, memory: Memory, whose: str = ""
    ) -> None:
        """`runs_of` reads submissions at once, `read` large ones in slices; `whose` share of memory they take."""
        self._broker = broker
        self._runs_of = runs_of
        self._read = read
        self._token = token
        self._memory = memory
        self._whose = whose

    def begin(self, ask: pb.Ask, over: Over, more: More) -> Callable[[], None] | Replies:
        """Take it without a task and return what calls it off; or return the replies, which take a task.

        A submission has no replies, and is over when they are. Raises a BrokerRefusal.
        """
        if ask.HasField("wait"):
            check_role(self._token, f"{OURS}Wait")
            return wait_at_once(self._broker, ask.wait, over, more) or self._waited(ask.wait)
        check_role(self._token, f"{OURS}Submit")
        cost = costs.of_small_submission(ask.submit)
        if cost is None or is_many(self._broker, weight_of(ask.submit)):
            return self._submitted_in_turns(ask.submit)
        self._memory.check(cost, self._whose)
        runs = self._runs_of([ask.submit])
        return _nothing if self._broker.submit_at_once(runs, partial(over, None)) else self._submitted(runs, cost)

    def holding(self, message: pb.Asks) -> Reservation:
        """Around what is done with a message. Raises Full, which ends the stream."""
        return self._memory.hold(costs.COPIES * message.ByteSize(), self._whose, is_small_ok=True)

    async def _waited(self, request: pb.WaitRequest) -> Replies:
        with self._memory.hold(costs.of_wait(request), self._whose, is_small_ok=True):
            async with aclosing(wait_replies(self._broker, request)) as replies:
                async for reply in replies:
                    yield reply

    async def _submitted_in_turns(self, request: pb.SubmitRequest) -> Replies:
        with self._memory.hold(await costs.of_submission(request), self._whose):
            await self._broker.submit(await self._read([request]))
        return
        yield pb.WaitReply()  # a generator of none

    async def _submitted(self, runs: list[NewRun], cost: int) -> Replies:
        with self._memory.hold(cost, self._whose):
            await self._broker.submit(runs)
        return
        yield pb.WaitReply()  # a generator of none


class Talk:
    """`answers` may be asked for once."""

    def __init__(self, answerer: Answerer, streams: Streams, whose: str = "") -> None:
        """`whose`: who is given a share of the open calls."""
        self._answerer = answerer
        self._streams = streams
        self._whose = whose
        self._own: int | None = None  # the ask that counts as the stream itself
        self._places: dict[int, Place] = {}  # of the other asks
        self._call_off: dict[int, Callable[[], object]] = {}  # by number, for each ask that is not over
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers, self._size = pb.Answers(), 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._leaving = False

    def leave(self) -> None:
        """The broker leaves: what is asked from now on is refused, and the stream ends when the rest is answered."""
        self._leaving = True
        self._changed.set()

    async def answers(self, asks: AsyncIterator[pb.Asks]) -> AsyncGenerator[pb.Answers, None]:
        """Until the client has no more to ask and all is answered. Raises Malformed, or NotServing."""
        listening = asyncio.create_task(self._listen(asks))
        listening.add_done_callback(lambda _: self._changed.set())
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._size:
                    yield self._taken()
                elif listening.done() and (not self._call_off or listening.exception() is not None):
                    listening.result()
                    return
                elif self._leaving and not self._call_off:
                    raise NotServing(CALL_AGAIN)
        finally:
            for number in list(self._call_off):
                self._forget(number)
            rest = [listening, *self._tasks]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    # --- what is asked --------------------------------------------------------------------------------

    async def _listen(self, asks: AsyncIterator[pb.Asks]) -> None:
        async for message in asks:
            with self._answerer.holding(message):
                for ask in message.ask:
                    while self._size >= PIECE:  # who does not listen is not listened to
                        await self._room_made()
                    self._take(ask)

    def _take(self, ask: pb.Ask) -> None:
        number, what = ask.number, ask.WhichOneof("what")
        if what == "never_mind":
            self._forget(number)
        elif what is None:
            raise Malformed(f"ask {number} asks for nothing that this broker knows of")
        elif number in self._call_off:
            raise Malformed(f"ask {number} is not over yet, and another comes under the same number")
        else:
            self._begin(ask)

    def _begin(self, ask: pb.Ask) -> None:
        number = ask.number
        try:
            if self._leaving:
                raise NotServing(CALL_AGAIN)
            self._take_place(ask)
        except BrokerRefusal as refusal:
            self._say(pb.Answer(number=number, over=True, refusal=refusal_message(refusal)))
            return
        self._call_off[number] = _nothing
        try:
            begun = self._answerer.begin(ask, partial(self._over, number), partial(self._more, number))
        except (BrokerRefusal, StoreError) as refusal:
            self._over(number, None, refusal)
            return
        if isinstance(begun, AsyncGenerator):
            self._more(number, begun)
        else:
            self._call_off[number] = begun

    def _more(self, number: int, replies: Replies) -> None:
        """From here on it takes a task."""
        task = asyncio.create_task(self._answer(number, replies))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        before = self._call_off[number]

        def call_off() -> None:
            task.cancel()
            before()

        self._call_off[number] = call_off

    async def _answer(self, number: int, replies: Replies) -> None:
        refusal: BrokerRefusal | StoreError | None = None
        try:
            async with aclosing(replies):
                async for reply in replies:
                    while self._size >= PIECE:
                        await self._room_made()
                    self._say(pb.Answer(number=number, wait=reply))
        except (BrokerRefusal, StoreError) as error:
            refusal = error
        except Exception as error:
            log.exception("ask %d could not be answered", number)
            refusal = StoreError(f"the broker failed to answer: {error!r}")
        self._over(number, None, refusal)

    def _forget(self, number: int) -> None:
        """Nobody wants to hear more of it."""
        call_off = self._call_off.pop(number, None)
        if call_off is not None:
            self._leave_place(number)
            call_off()
            self._changed.set()

    def _take_place(self, ask: pb.Ask) -> None:
        if self._own is None:
            self._own = ask.number
        else:
            kind = Kind.WAIT if ask.HasField("wait") else Kind.SUBMIT
            self._places[ask.number] = self._streams.enter(kind, self._whose)

    def _leave_place(self, number: int) -> None:
        if number == self._own:
            self._own = None
        else:
            self._places.pop(number).leave()

    # --- what is answered -----------------------------------------------------------------------------

    def _over(
        self, number: int, reply: pb.WaitReply | None, refusal: BrokerRefusal | StoreError | None
    ) -> None:
        if self._call_off.pop(number, None) is None:
            return  # it was forgotten
        self._leave_place(number)
        said = None if refusal is None else refusal_message(refusal)
        self._say(pb.Answer(number=number, wait=reply, over=True, refusal=said))

    def _say(self, answer: pb.Answer) -> None:
        self._answers.answer.append(answer)
        self._size += answer.ByteSize() + 4
        self._changed.set()

    def _taken(self) -> pb.Answers:
        """All that has gathered, for the next message."""
        answers, self._answers, self._size = self._answers, pb.Answers(), 0
        self._room.set()
        if self._leaving or not self._call_off:
            self._changed.set()  # it may have been the last
        return answers

    async def _room_made(self) -> None:
        self._room.clear()
        await self._room.wait()


def _nothing() -> None:
    """What is durable in a moment is not called off."""
