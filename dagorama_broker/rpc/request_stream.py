"""Answers the `Talk` call: one stream per client, for any number of requests at a time.

Each request counts as a call, and one of them as the stream itself; it is answered as that call would be, and none
waits for another. A request that only needs memory, a commit or the end of a node is answered without a task of its
own, which would double its cost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import MESSAGE_TARGET
from dagorama_broker.engine.commits import CALL_AGAIN
from dagorama_broker.errors import BrokerRefusal, InvalidArgument, StoreError, Unavailable
from dagorama_broker.rpc.handlers import Writer, hand_over
from dagorama_broker.rpc.limits import CallLimiter, Kind, Place
from dagorama_broker.rpc.request_handler import Replies, RequestHandler, Work
from dagorama_broker.rpc.status import refusal_message

log = logging.getLogger("dagorama_broker")


class RequestStream:
    """One open stream; `answers` may be called once."""

    def __init__(
        self, answerer: RequestHandler, streams: CallLimiter, whose: str = "", writer: Writer | None = None
    ) -> None:
        """`whose` share of the open calls the requests take; `writer`: of a transport that has one."""
        self._answerer = answerer
        self._writer = writer
        self._is_flushing = False
        self._streams = streams
        self._whose = whose
        self._own: int | None = None  # the request that counts as the stream itself
        self._places: dict[int, Place] = {}  # of the other requests
        self._call_off: dict[int, Callable[[], object]] = {}  # by number, for each unfinished request
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers, self._size = pb.Responses(), 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._leaving = False
        self._listening: asyncio.Task[None] | None = None

    def leave(self) -> None:
        """Refuse new requests, because the broker leaves, and end the stream when the others are answered."""
        self._leaving = True
        self._changed.set()

    async def answers(self, asks: AsyncIterator[pb.Requests]) -> AsyncGenerator[pb.Responses, None]:
        """Yield answers until the client ends the stream and all is answered. Raises InvalidArgument or Unavailable."""
        self._listening = listening = asyncio.create_task(self._listen(asks))
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
                    raise Unavailable(CALL_AGAIN)
        finally:
            for number in list(self._call_off):
                self._forget(number)
            rest = [listening, *self._tasks]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    # --- requests -------------------------------------------------------------------------------------

    async def _listen(self, asks: AsyncIterator[pb.Requests]) -> None:
        hand_over(asks, self._take_now)
        async for message in asks:
            with self._answerer.receiving(message):
                for ask in message.request:
                    while self._size >= MESSAGE_TARGET:  # do not read from a client that does not read its answers
                        await self._room_made()
                    self._take(ask)

    def _take_now(self, message: pb.Requests) -> bool:
        """Take a message unless the client does not read its answers; return whether it was taken."""
        if self._size >= MESSAGE_TARGET:
            return False
        with self._answerer.receiving(message):
            for ask in message.request:
                self._take(ask)
        return True

    def _take(self, ask: pb.Request) -> None:
        number, what = ask.number, ask.WhichOneof("what")
        if what == "cancel":
            self._forget(number)
        elif what is None:
            raise InvalidArgument(f"ask {number} asks for nothing that this broker knows of")
        elif number in self._call_off:
            raise InvalidArgument(f"ask {number} is not over yet, and another comes under the same number")
        else:
            self._begin(ask)

    def _begin(self, ask: pb.Request) -> None:
        number = ask.number
        try:
            if self._leaving:
                raise Unavailable(CALL_AGAIN)
            self._take_place(ask)
        except BrokerRefusal as refusal:
            self._say(pb.Response(number=number, done=True, refusal=refusal_message(refusal)))
            return
        self._call_off[number] = _nothing
        try:
            over, more, run = partial(self._over, number), partial(self._more, number), partial(self._run, number)
            cancel = self._answerer.begin(ask, over, more, run)
        except (BrokerRefusal, StoreError) as refusal:
            self._over(number, None, refusal)
            return
        if cancel is not None:
            self._call_off[number] = cancel

    def _more(self, number: int, replies: Replies) -> None:
        """Send replies, for which the request takes a task."""
        self._run(number, partial(self._send_each, number, replies))

    def _run(self, number: int, work: Work) -> None:
        """Do the work of a request in a task."""
        task = asyncio.create_task(self._finish(number, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        before = self._call_off[number]

        def call_off() -> None:
            task.cancel()
            before()

        self._call_off[number] = call_off

    async def _send_each(self, number: int, replies: Replies) -> None:
        async with aclosing(replies):
            async for reply in replies:
                while self._size >= MESSAGE_TARGET:
                    await self._room_made()
                self._say(pb.Response(number=number, wait=reply))

    async def _finish(self, number: int, work: Work) -> None:
        """Wait for the work of a request, and answer that it is over."""
        refusal: BrokerRefusal | StoreError | None = None
        try:
            await work()
        except (BrokerRefusal, StoreError) as error:
            refusal = error
        except Exception as error:
            log.exception("ask %d could not be answered", number)
            refusal = StoreError(f"the broker failed to answer: {error!r}")
        self._over(number, None, refusal)

    def _forget(self, number: int) -> None:
        """Cancel a request that the client no longer wants."""
        call_off = self._call_off.pop(number, None)
        if call_off is not None:
            self._leave_place(number)
            call_off()
            self._changed.set()

    def _take_place(self, ask: pb.Request) -> None:
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

    # --- answers --------------------------------------------------------------------------------------

    def _over(self, number: int, reply: pb.WaitReply | None, refusal: BrokerRefusal | StoreError | None) -> None:
        if self._call_off.pop(number, None) is None:
            return  # it was cancelled
        self._leave_place(number)
        said = None if refusal is None else refusal_message(refusal)
        self._say(pb.Response(number=number, wait=reply, done=True, refusal=said))

    def _say(self, answer: pb.Response) -> None:
        self._answers.response.append(answer)
        self._size += answer.ByteSize() + 4
        if self._writer is None:
            self._changed.set()
        elif not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush, self._writer)

    def _flush(self, writer: Writer) -> None:
        """Send all answers that have gathered, which takes a switch of tasks less than `answers`."""
        self._is_flushing = False
        if self._size and writer.is_writable:
            writer.write_now(self._taken())
        else:
            self._changed.set()

    def _taken(self) -> pb.Responses:
        """Return all answers that have gathered, for the next message."""
        answers, self._answers, self._size = self._answers, pb.Responses(), 0
        self._answerer.broker.traffic.messages_out += 1
        self._room.set()
        is_ending = self._leaving or (self._listening is not None and self._listening.done())
        if is_ending and not self._call_off:
            self._changed.set()  # it was the last
        return answers

    async def _room_made(self) -> None:
        self._room.clear()
        await self._room.wait()


def _nothing() -> None:
    """Do nothing: a submission that is durable in a moment is not cancelled."""
