"""The pool of child processes, if the system has no room for another process."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio

from dagorama.api import broker_pb2 as pb
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama.worker.shared_memory import SharedMemory
from dagorama.worker.supervisor import child_pool
from dagorama.worker.supervisor.child_pool import MAX_FORK_ATTEMPTS, ChildPool, PoolEvents
from dagorama.worker.supervisor.fork_server import _EVENT, _REQUEST, ForkServer, _Event
from dagorama.worker.supervisor.session import Session
from dagorama.worker.supervisor.slot import Slot
from dagorama.worker.supervisor.spool import Spool
from dagorama.worker.supervisor.transfers import Transfers
from tests.support.worker_grants import call, grant_of

if TYPE_CHECKING:
    from dagorama.api.broker_pb2_grpc import BrokerAsyncStub

WAIT = 10


class Kept:
    """A pool of two slots. The test stands for its fork server and for the rest of the supervisor."""

    def __init__(self, folder: Path, stub: BrokerAsyncStub) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self.session = Session(pb.Hello(protocol=1, worker=b"w" * 16, slots=2))
        self.session.open([])
        self.session.next_message()
        self.slots = [Slot(number, part) for number, part in enumerate(SharedMemory(2).slots)]
        self.ended: list[tuple[int, int]] = []
        spool = Spool(folder)
        self.fork_server = ForkServer(0, self._ours)
        events = PoolEvents(
            on_ready=lambda _: None,
            on_returned=lambda _: None,
            on_change=lambda: None,
            on_started=lambda slot, pid: None,
            on_ended=lambda slot, code: self.ended.append((slot, code)),
            on_died=lambda cause: None,
            on_fatal=self.fail,
        )
        self.pool = ChildPool(self.slots, self.fork_server, self.session, Transfers(stub, spool), spool, events)
        self.pool.start()

    def fail(self, code: int, why: str) -> None:
        raise AssertionError(why)

    async def asked(self) -> int:
        """Return the slot for which the next child is requested."""
        async with asyncio.timeout(WAIT):
            data = await asyncio.get_running_loop().sock_recv(self._theirs, _REQUEST.size)
        return int(_REQUEST.unpack(data)[1])

    async def refuse(self, slot: int) -> None:
        answer = _EVENT.pack(_Event.REFUSED, slot, 0, errno.EAGAIN, 0)
        await asyncio.get_running_loop().sock_sendall(self._theirs, answer)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.fork_server)
        self._theirs.close()
        self._ours.close()


@pytest_asyncio.fixture
async def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kept]:
    monkeypatch.setattr(child_pool, "FORK_RETRY_DELAY_S", 0.001)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        made = Kept(tmp_path / "spool", BrokerStub(channel))
        yield made
        made.close()


async def test_a_slot_whose_child_cannot_be_forked_is_given_up_and_what_it_held_returned(kept: Kept) -> None:
    assert [await kept.asked(), await kept.asked()] == [0, 1]
    grant = grant_of(call("echo", 1))
    kept.pool.nodes.grant(grant)
    for _ in range(MAX_FORK_ATTEMPTS - 1):
        await kept.refuse(0)
        assert await kept.asked() == 0
        assert not kept.slots[0].closed
    await kept.refuse(0)
    async with asyncio.timeout(WAIT):
        while not kept.slots[0].closed:
            await asyncio.sleep(0)
    message = kept.session.next_message()
    assert message is not None
    assert [list(returned.attempt) for returned in message.returns] == [list(grant.attempt)]
    assert list(message.closed_slots) == [0]
    assert kept.ended == [(0, 1)]


async def test_the_last_slot_goes_on_trying(kept: Kept) -> None:
    assert [await kept.asked(), await kept.asked()] == [0, 1]
    kept.pool.end(kept.slots[1])
    for _ in range(MAX_FORK_ATTEMPTS + 2):
        await kept.refuse(0)
        assert await kept.asked() == 0
    assert not kept.slots[0].closed
