"""Run a session: one stream to the broker after the other, until the worker shuts down."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama.client.status import is_broken_off
from dagorama.logging import get_logger
from dagorama.worker.supervisor.calls import OpenedCall
from dagorama.worker.supervisor.session import FINAL, MAX_RECONNECT_PAUSE_S, Backoff, Held, Session


class Refused(Exception):
    """The broker has refused the worker for good."""


class Stream:
    """Opens one stream after the other, sends the messages of the session and passes on received ones."""

    def __init__(
        self,
        open_call: Callable[[], Awaitable[OpenedCall]],
        session: Session,
        held: Callable[[], list[Held]],
        on_message: Callable[[pb.BrokerMessage], None],
        on_sent: Callable[[], None],
        on_lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._open_call = open_call
        self._session = session
        self._held = held
        self._on_message = on_message
        self._on_sent = on_sent
        self._on_lost = on_lost  # called with the reason when a welcomed session loses its stream
        self._pending = asyncio.Event()
        self._closing = False
        self._beating: asyncio.TimerHandle | None = None
        self.heard = False  #: a broker receives the messages

    def wake(self) -> None:
        """Send the new messages of the session, if there are any."""
        self._pending.set()

    def close(self) -> None:
        """Send the remaining messages and end the stream. `live` returns then."""
        self._closing = True
        self.wake()

    async def live(self) -> None:
        """Run until `close`. Raises Refused."""
        backoff = Backoff(cap=MAX_RECONNECT_PAUSE_S)
        while not self._closing:
            try:
                await self._converse(backoff)
                self._note_loss("it has ended the stream")
            except grpc.aio.AioRpcError as error:
                if error.code().name in FINAL and not is_broken_off(error.code().name, error.details() or ""):
                    raise Refused(error.details() or error.code().name) from None
                self._note_loss(error.details() or error.code().name)
                if self._session.welcome is None and not self._is_written_over(error):
                    get_logger().warning("lost the connection to the broker (%s); retrying", error.details())
            if not self._closing:
                await asyncio.sleep(backoff.pause(random.random()))

    def _note_loss(self, why: str) -> None:
        if self._session.welcome is not None and not self._closing:
            self._on_lost(why)

    def _is_written_over(self, error: grpc.aio.AioRpcError) -> bool:
        """Return whether grpc.aio may have replaced the broker's status. The next stream will receive it again.

        If the broker ends a stream while the worker writes to it, grpc.aio loses the status and reports INTERNAL (grpc
        issue 36066). This happens when a broker refuses a worker that is sending its hello.
        """
        return error.code() is grpc.StatusCode.INTERNAL and self._session.welcome is None

    async def _converse(self, backoff: Backoff) -> None:
        self._session.open(self._held())
        opened = await self._open_call()
        call = opened.call
        self.wake()
        writing = asyncio.ensure_future(self._write(opened))
        try:
            async for message in call:
                backoff.reset()
                self._session.receive(message)
                if message.HasField("welcome"):
                    self._beat(message.welcome.heartbeat)
                self._on_message(message)
                if self._session.keeps_too_much:
                    self._session.tidy(self._held())
                if message.draining:
                    break
        finally:
            self.heard = False
            self._stop_beating()
            writing.cancel()
            call.cancel()
            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await writing

    async def _write(self, opened: OpenedCall) -> None:
        loop = asyncio.get_running_loop()
        next_send_at = 0.0
        while True:
            await self._pending.wait()
            if not self._closing and (now := loop.time()) < next_send_at:
                await asyncio.sleep(next_send_at - now)
            self._pending.clear()
            while (message := self._session.next_message()) is not None:
                next_send_at = loop.time() + opened.interval
                await opened.call.write(message)
                self.heard = True
                self._on_sent()
            if self._closing:
                await opened.call.done_writing()
                return

    def _beat(self, interval: float) -> None:
        def beat() -> None:
            self._session.beat()
            self.wake()
            self._beat(interval)

        self._stop_beating()
        self._beating = asyncio.get_running_loop().call_later(interval, beat)

    def _stop_beating(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
