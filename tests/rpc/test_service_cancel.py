"""Cancel over the wire: what is answered, what waiters are told, what a restart finds."""

from __future__ import annotations

import os

import grpc
import grpc.aio
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.raw import serving, submit


def chain(instance: bytes) -> pb.SubmitRequest:
    """Two nodes, the second waiting for the first."""
    functions = [pb.Function(name="m:C.first", hash="h"), pb.Function(name="m:C.second", hash="h")]
    nodes = pb.Nodes(
        instance=instance,
        creates=pb.NewInstance(definition="m:C"),
        origin=instance[:12],
        function=[0, 1],
        arguments=[b"\1\0a", b"\1\0b"],
        source_count=[0, 1],
        source=[0],
    )
    return pb.SubmitRequest(functions=functions, nodes=[nodes])


def node(instance: bytes, counter: int) -> bytes:
    return instance[:12] + counter.to_bytes(4, "big")


async def test_waits_for_cancelled_nodes_and_their_dependents_end() -> None:
    async with serving() as served:
        instance = os.urandom(16)
        await submit(served.stub, chain(instance))
        reply = await served.stub.Cancel(pb.CancelRequest(instance=instance, node=[node(instance, 0)]))
        assert reply.cancelled == 2
        async for told in served.stub.Wait(pb.WaitRequest(instance=instance, node=[node(instance, 1)])):
            assert list(told.state) == [pb.CANCELLED]
            (failure,) = told.failure
            assert (failure.function, failure.type) == ("m:C.first", "dagorama.errors.NodeCancelled")
        again = await served.stub.Cancel(pb.CancelRequest(instance=instance, node=[node(instance, 0)]))
        assert again.cancelled == 0


async def test_without_nodes_all_of_the_instance_is_cancelled() -> None:
    async with serving() as served:
        instance = os.urandom(16)
        await submit(served.stub, chain(instance))
        assert (await served.stub.Cancel(pb.CancelRequest(instance=instance))).cancelled == 2
        info = await served.stub.GetInstance(pb.GetInstanceRequest(instance=instance))
        assert (info.ended, info.failed, info.unfinished) == (True, True, 0)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (pb.CancelRequest(instance=b"short"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.CancelRequest(instance=bytes(16)), grpc.StatusCode.NOT_FOUND),
        (pb.CancelRequest(instance=bytes(16), node=[bytes(16)]), grpc.StatusCode.NOT_FOUND),
    ],
    ids=["malformed", "unknown instance", "unknown node"],
)
async def test_cancelling_an_unknown_instance_or_node_is_refused(
    request_: pb.CancelRequest, status: grpc.StatusCode
) -> None:
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.stub.Cancel(request_)
        assert refused.value.code() is status
