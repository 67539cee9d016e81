"""Draining a worker: it is granted nothing more, is told to leave, and is told again if it comes back."""

from __future__ import annotations

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.local_calls import transport
from tests.support.raw import Dag, Served, refused, serving, submit

__all__ = ["transport"]


async def drain(served: Served, id: bytes) -> pb.DrainWorkerReply:
    return await served.stub.DrainWorker(pb.DrainWorkerRequest(worker=id))


async def test_a_drained_worker_is_told_to_leave_and_is_granted_nothing_more() -> None:
    async with serving() as served:
        worker = await served.worker(name="one")
        await submit(served.stub, Dag().submission(b"a"))
        node = await worker.node()
        reply = await drain(served, worker.hello.worker[:2])
        assert reply == pb.DrainWorkerReply(name="one", held=1)
        await worker.until(lambda: any(message.drain for message in worker.messages))
        (info,) = (await served.status()).workers
        assert info.leaving
        dag = Dag()
        await submit(served.stub, dag.submission(b"b"))
        await worker.durable(await worker.complete(node))
        request = pb.ExplainNodeRequest(instance=dag.instance, node=dag.id(0))
        (reason, *_) = (await served.stub.ExplainNode(request)).reasons
        assert reason.code == "leaving"
        assert not worker.given
        assert (await drain(served, worker.hello.worker)).was_draining
        other = await served.worker()
        assert (await other.node()).instance == dag.instance


async def test_a_drained_worker_that_connects_again_is_told_again() -> None:
    async with serving() as served:
        worker = await served.worker()
        await drain(served, worker.hello.worker)
        await worker.vanish()
        worker.messages.clear()
        await worker.connect()
        await worker.until(lambda: any(message.drain for message in worker.messages))
        await submit(served.stub, Dag().submission(b"a"))
        (info,) = (await served.status()).workers
        assert (info.leaving, info.held) == (True, 0)


@pytest.mark.parametrize("id", [b"", b"x", bytes(17)])
async def test_an_id_of_another_length_is_refused(id: bytes) -> None:
    async with serving() as served:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "the ID of a worker"):
            await drain(served, id)


async def test_an_id_that_no_worker_or_several_have_is_refused() -> None:
    async with serving() as served:
        with refused(grpc.StatusCode.NOT_FOUND, "no connected worker has an ID that begins with abab"):
            await drain(served, b"\xab\xab")
        for number in range(5):
            await served.worker(worker=b"\xab\xab" + bytes([number] * 14), secret=b"", name=f"w{number}")
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "several workers have IDs that begin with abab"):
            await drain(served, b"\xab\xab")
