"""The children's keeper, where the system has no room for another process."""

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
from dagorama.worker.supervisor.child_pool import TRIES, Children
from dagorama.worker.supervisor.fork_server import _EVENT, _REQUEST, Nursery, _What
from dagorama.worker.supervisor.session import Session
from dagorama.worker.supervisor.slot import Slot
from dagorama.worker.supervisor.spool import Spool
from dagorama.worker.supervisor.transfers import Transfers
from tests.support.worker_grants import call, grant_of

if TYPE_CHECKING:
    from dagorama.api.broker_pb2_grpc import BrokerAsyncStub

WAIT = 10


class Kept:
    """A keeper of two slots; the test is its nursery, and the rest of its supervisor."""

    code = 0

    def __init__(self, folder: Path, stub: BrokerAsyncStub) -> None:
        ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self.session = Session(pb.Hello(protocol=1, worker=b"w" * 16, slots=2))
        self.session.open([])
        self.session.next_message()
        self.slots = [Slot(number, part) for number, part in enumerate(SharedMemory(2).slots)]
        self.told: list[tuple[object, ...]] = []
        spool = Spool(folder)
        self.nursery = Nursery(0, ours)
        self.keeper = Children(self.slots, self.nursery, self.session, Transfers(stub, spool), spool, self)
        self.keeper.start()

    def changed(self) -> None: ...

    def ready(self, definitions: str) -> None: ...

    def gave_back(self, returned: pb.Return) -> None: ...

    def ask_to_leave(self, code: int = 0, why: str = "") -> None:
        raise AssertionError(why)

    def tell(self, *words: object) -> None:
        self.told.append(words)

    async def asked(self) -> int:
        """The slot for which a child is asked for next."""
        async with asyncio.timeout(WAIT):
            data = await asyncio.get_running_loop().sock_recv(self._theirs, _REQUEST.size)
        return int(_REQUEST.unpack(data)[1])

    async def refuse(self, slot: int) -> None:
        answer = _EVENT.pack(_What.REFUSED, slot, 0, errno.EAGAIN, 0)
        await asyncio.get_running_loop().sock_sendall(self._theirs, answer)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.nursery)
        self._theirs.close()


@pytest_asyncio.fixture
async def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kept]:
    monkeypatch.setattr(child_pool, "NO_ROOM", 0.001)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        made = Kept(tmp_path / "spool", BrokerStub(channel))
        yield made
        made.close()


async def test_a_slot_whose_child_cannot_be_forked_is_given_up_and_what_it_held_returned(kept: Kept) -> None:
    assert [await kept.asked(), await kept.asked()] == [0, 1]
    grant = grant_of(call("echo", 1))
    kept.keeper.grant(grant)
    for _ in range(TRIES - 1):
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
    assert kept.told == [("ended", 0, 1)]


async def test_the_last_slot_goes_on_trying(kept: Kept) -> None:
    assert [await kept.asked(), await kept.asked()] == [0, 1]
    kept.keeper.end(kept.slots[1])
    for _ in range(TRIES + 2):
        await kept.refuse(0)
        assert await kept.asked() == 0
    assert not kept.slots[0].closed
