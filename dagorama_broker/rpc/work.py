"""Answers the `Work` call: a stream for each worker, in which it reports and is granted nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from math import inf

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import MOST_SLOTS
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.proofs import PresentedGrant, check_secret
from dagorama_broker.engine.turns import LONGEST, Turn
from dagorama_broker.engine.worker_session import BREATH, Session
from dagorama_broker.errors import FailedPrecondition, InvalidArgument
from dagorama_broker.model.domain import WireProtocol
from dagorama_broker.rpc import work_messages
from dagorama_broker.rpc.fields import (
    LONGEST_NAME,
    bounded,
    check_names,
    check_text,
    check_worker_keys,
    id_bytes,
)
from dagorama_broker.rpc.handlers import Writer, hand_over, without_waiting
from dagorama_broker.rpc.limits import WorkerConfig
from dagorama_broker.rpc.permissions import caller, restrict
from dagorama_broker.rpc.reports import (
    is_quick,
    read_results,
    take_death,
    take_results,
    take_return,
)
from dagorama_broker.rpc.stacks import take_stacks
from dagorama_broker.scheduler import WorkerInfo


class WorkerStreams:
    def __init__(self, broker: Broker, config: WorkerConfig) -> None:
        self._broker = broker
        self._config = config
        self._traffic = broker.traffic

    async def answer(
        self, requests: AsyncIterator[pb.WorkerMessage], writer: Writer | None = None
    ) -> AsyncGenerator[pb.BrokerMessage, None]:
        """Yield what a worker is sent, until it hangs up or is refused. Raises a BrokerRefusal.

        `writer`: of the local transport. A message costs little there: none waits for more to send, and what needs
        nothing but memory is taken in, and written, without a switch to the task of the call.
        """
        first = await anext(aiter(requests), None)
        if first is None or not first.HasField("hello"):
            raise InvalidArgument("a worker's first message is its hello")
        session = self._welcome(first.hello, BREATH if writer is None else 0.0)
        yield self._welcome_message()
        if writer is not None:
            session.send_now = partial(self._send_now, session, writer)
        reader = asyncio.create_task(self._read(session, first, requests))
        reader.add_done_callback(lambda _: session.wake())
        try:
            while not reader.done():
                news = await session.next()
                async for message in work_messages.messages(self._broker, news):
                    self._traffic.messages_out += 1
                    yield message
                if news.draining:
                    session.leaving = True
                    return
                del news  # it references nodes that may have ended by the time there is more to send
            reader.result()
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await reader
            session.send_now = None
            self._goodbye(session)

    def _send_now(self, session: Session, writer: Writer) -> bool:
        """Write the news of a session if they need nothing but memory; return whether they are written."""
        broker = self._broker
        if session.over or not writer.is_writable or not work_messages.are_at_hand(broker, session.news):
            return False
        for message in without_waiting(_all(work_messages.messages(broker, session.take()))):
            self._traffic.messages_out += 1
            writer.write_now(message)
        return True

    def _welcome(self, hello: pb.Hello, breath: float) -> Session:
        broker, scheduler = self._broker, self._broker.scheduler
        presence = restrict(worker_info_of(hello), caller.get())
        proven = self._proven(hello)
        known = scheduler.workers.get(presence.id)
        presented = list(zip(hello.held_node, hello.held_attempt, hello.held_slot, strict=True))
        held = [(key, attempt, slot) for key, attempt, slot in presented if (key, attempt) in proven]
        worker = scheduler.connect(presence, held, broker.see_time())
        if known is not None and (earlier := broker.sessions.get(known)) is not None:
            earlier.end(FailedPrecondition("this worker has connected again, on another stream"))
        for key, attempt, _ in presented:
            if (key, attempt) not in proven:
                scheduler.refuse(worker, attempt)
        session = broker.sessions[worker] = Session(worker, breath)
        session.shows_stacks = hello.shows_stacks
        session.log_arrival()
        if broker.is_drained(presence.id):
            broker.drain(worker)
        broker.commits.mark_changed()
        return session

    def _proven(self, hello: pb.Hello) -> set[tuple[int, int]]:
        """Return the claims that the worker proves. Raises InvalidArgument or PermissionDenied."""
        if not hello.secret:
            return set()
        check_secret(hello.worker, hello.secret)
        grants = [PresentedGrant(grant.node, grant.attempt, grant.proof) for grant in hello.grants]
        return self._broker.proofs.proven(hello.worker, grants)

    def _welcome_message(self) -> pb.BrokerMessage:
        config, scheduler = self._config, self._broker.scheduler
        self._traffic.messages_out += 1
        return pb.BrokerMessage(
            welcome=pb.Welcome(
                epoch=scheduler.epoch,
                heartbeat=config.heartbeat,
                lease=scheduler.timing.lease,
                large_value_threshold=config.large_from,
                cancel_grace=config.cancel_grace,
                values=values_folder(config),
            )
        )

    def _goodbye(self, session: Session) -> None:
        broker, scheduler, worker = self._broker, self._broker.scheduler, session.worker
        broker.sessions.pop(worker, None)
        broker.stacks.lose(worker)
        session.log_end(is_connected=scheduler.is_connected(worker))
        # A broker that leaves has hung up on its workers itself: that does not count as a loss.
        scheduler.disconnect(worker, broker.see_time(), counts=not broker.is_leaving)
        with suppress(Exception):
            broker.commits.mark_changed()

    async def _read(self, session: Session, first: pb.WorkerMessage, rest: AsyncIterator[pb.WorkerMessage]) -> None:
        """Take the worker's messages until it hangs up. Raises a BrokerRefusal, which ends the session."""
        await self._take_in(session, first)
        left: Sequence[pb.Results] | None = None  # of the next message, if its reports were read and not taken

        def take_now(message: pb.WorkerMessage) -> bool:
            """Take a message that needs nothing but memory; return whether it was taken. Raises a BrokerRefusal."""
            nonlocal left
            if message.HasField("hello"):
                return False
            results = [read_results(report) for report in message.reports]
            if not all(is_quick(self._broker, each) for each in results):
                left = results
                return False
            without_waiting(self._take_in(session, message, results, inf))
            return True

        hand_over(rest, take_now)
        async for message in rest:
            if message.HasField("hello"):
                raise InvalidArgument("a worker says hello once, in its first message")
            results, left = left, None
            await self._take_in(session, message, results)

    async def _take_in(
        self,
        session: Session,
        message: pb.WorkerMessage,
        results: Sequence[pb.Results] | None = None,
        longest: float = LONGEST,
    ) -> None:
        """`results`: of the reports, if they were read already; `longest`: seconds after which other calls run."""
        self._traffic.messages_in += 1
        broker, scheduler, worker = self._broker, self._broker.scheduler, session.worker
        if not scheduler.is_connected(worker):
            raise FailedPrecondition(
                "this worker was silent for longer than its lease and has been given up: connect again"
            )
        scheduler.record_contact(worker, broker.see_time())
        for report, each in zip(message.reports, results or map(read_results, message.reports), strict=True):
            await take_results(broker, session, report.sequence, each, Turn(longest))
        for returned in message.returns:
            take_return(broker, worker, returned)
        for death in message.deaths:
            take_death(broker, worker, death)
        if message.stacks:
            take_stacks(broker, worker, message.stacks)
        for index in message.closed_slots:
            scheduler.close_slot(worker, index, broker.see_time())
        if message.draining:
            scheduler.leave(worker)
            session.leaving = True
            session.wake()
        broker.commits.mark_changed()
        if message.reports or message.returns or message.deaths:
            settled = session.settled(scheduler.staged_attempts)
            broker.commits.when_durable(lambda error: None if error else session.acknowledge(settled))


async def _all(messages: AsyncIterator[pb.BrokerMessage]) -> list[pb.BrokerMessage]:
    return [message async for message in messages]


def values_folder(config: WorkerConfig) -> pb.GetSharedFolderReply:
    """Return where clients on the same machine find large values."""
    path, word = config.values_folder
    return pb.GetSharedFolderReply(path=path, nonce=word, takes_named=bool(path))


def worker_info_of(hello: pb.Hello) -> WorkerInfo:
    """Return what a worker says about itself. Raises InvalidArgument."""
    if hello.protocol != 1:
        raise InvalidArgument(f"this broker speaks protocol 1, the worker {hello.protocol}: update one of them")
    if not 1 <= hello.slots <= MOST_SLOTS:
        raise InvalidArgument(f"a worker has 1 to {MOST_SLOTS} slots, not {hello.slots}")
    if not len(hello.held_node) == len(hello.held_attempt) == len(hello.held_slot):
        raise InvalidArgument("the columns of what the worker holds have different lengths")
    check_names((*hello.include_queues, *hello.exclude_queues, *hello.tolerations))
    check_worker_keys(hello.key_ids)
    return WorkerInfo(
        id_bytes(hello.worker, "a worker"),
        check_text(bounded(hello.name, LONGEST_NAME), "the name of a worker"),
        hello.slots,
        WireProtocol.V1,
        frozenset(hello.include_queues),
        frozenset(hello.exclude_queues),
        frozenset(hello.tolerations),
        hello.until == pb.DRAINED,
        hello.until == pb.IDLE,
        frozenset(id.hex() for id in hello.key_ids),
        is_proven=bool(hello.secret),
        fuses_joins=hello.fuses_joins,
    )
