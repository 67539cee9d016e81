"""Carries out the requests of an `Exchange` call: small ones without a task each, which would double their cost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import TypeAlias

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.rpc import costs
from dagorama_broker.rpc.memory_guard import MemoryGuard, Reservation
from dagorama_broker.rpc.messages import weight_of
from dagorama_broker.rpc.permissions import OURS, check_role
from dagorama_broker.rpc.tokens import Token
from dagorama_broker.rpc.wait import More, Over, wait_at_once, wait_replies
from dagorama_broker.scheduler import NewNodes

ReadBlocks = Callable[[list[pb.SubmitRequest]], list[NewNodes]]
ReadMany = Callable[[list[pb.SubmitRequest]], Awaitable[list[NewNodes]]]
Replies: TypeAlias = AsyncGenerator[pb.WaitReply, None]
#: Begins the work of a request that takes a task.
Work: TypeAlias = Callable[[], Coroutine[None, None, None]]


class RequestHandler:
    """Carries out the requests of one client."""

    def __init__(
        self,
        broker: Broker,
        read_blocks_of: ReadBlocks,
        read: ReadMany,
        token: Token | None,
        memory: MemoryGuard,
        whose: str = "",
    ) -> None:
        """`runs_of` reads submissions at once, `read` large ones in slices; `whose` share of memory they take."""
        self.broker = broker
        self._read_blocks_of = read_blocks_of
        self._read = read
        self._token = token
        self._memory = memory
        self._whose = whose

    def begin(self, ask: pb.Request, over: Over, more: More, run: Callable[[Work], None]) -> Callable[[], None] | None:
        """Carry out a request; return a function that cancels it if it takes no task and can be cancelled.

        `over` is called when it is over; if it takes a task, `more` gets its replies, or `run` its work without
        replies. Raises a BrokerRefusal.
        """
        if ask.HasField("wait"):
            check_role(self._token, f"{OURS}Wait")
            cancel = wait_at_once(self.broker, ask.wait, over, more)
            if cancel is None:
                more(self._waited(ask.wait))
            return cancel
        check_role(self._token, f"{OURS}SubmitStream")
        cost = costs.of_small_submission(ask.submit)
        if cost is None or self.broker.scheduler.limits.is_large(weight_of(ask.submit)):
            run(partial(self._submit_large, ask.submit))
            return None
        self._memory.check(cost, self._whose)
        runs = self._read_blocks_of([ask.submit])
        if self.broker.submissions.submit_from_memory(runs):
            self.broker.commits.mark_changed()
            self.broker.commits.when_durable(partial(over, None))
        else:
            run(partial(self._submit, runs, cost))
        return None

    def receiving(self, message: pb.Requests) -> Reservation:
        """Count a message, and reserve memory while it is processed. Raises Overloaded, which ends the stream."""
        self.broker.traffic.messages_in += 1
        return self._memory.hold(costs.COPIES * message.ByteSize(), self._whose, is_small_ok=True)

    async def _waited(self, request: pb.WaitRequest) -> Replies:
        with self._memory.hold(costs.of_wait(request), self._whose, is_small_ok=True):
            async with aclosing(wait_replies(self.broker, request)) as replies:
                async for reply in replies:
                    yield reply

    async def _submit_large(self, request: pb.SubmitRequest) -> None:
        with self._memory.hold(await costs.of_submission(request), self._whose):
            await self.broker.submissions.submit(await self._read([request]))

    async def _submit(self, runs: list[NewNodes], cost: int) -> None:
        with self._memory.hold(cost, self._whose):
            await self.broker.submissions.submit(runs)
