"""The client of dagorama 0.1.10, by its stub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc

from dagorama.api import api_pb2 as old
from tests.support.raw import refused

if TYPE_CHECKING:
    from dagorama.api.api_pb2_grpc import DagoramaAsyncStub


class Client:
    """Make the calls that the client of dagorama 0.1.10 makes."""

    def __init__(self, stub: DagoramaAsyncStub) -> None:
        self.stub = stub

    async def worker(self, **queues: Any) -> str:
        return (await self.stub.CreateWorker(old.WorkerConfigurationMessage(**queues))).identifier

    async def instance(self) -> str:
        identifier = str(uuid4())
        reply = await self.stub.CreateInstance(old.InstanceConfigurationMessage(identifier=identifier))
        assert reply.identifier == identifier
        return identifier

    def node(self, instance: str, **fields: Any) -> old.NodeConfigurationMessage:
        fields = {"identifier": str(uuid4()), "functionName": "work:f", "arguments": b"pickled", **fields}
        return old.NodeConfigurationMessage(instanceId=instance, **fields)

    async def create(self, instance: str, **fields: Any) -> str:
        node = self.node(instance, **fields)
        await self.stub.CreateNode(node)
        return node.identifier

    async def get_work(self, worker: str) -> old.NodeMessage:
        return await self.stub.GetWork(old.WorkerMessage(identifier=worker))

    async def no_work(self, worker: str) -> None:
        with refused(grpc.StatusCode.NOT_FOUND, "no work available"):
            await self.get_work(worker)

    async def complete(self, worker: str, node: old.NodeMessage, result: bytes = b"done") -> old.NodeMessage:
        return await self.stub.SubmitWork(
            old.WorkCompleteMessage(instanceId=node.instanceId, nodeId=node.identifier, workerId=worker, result=result)
        )

    async def fail(self, worker: str, node: old.NodeMessage, traceback: str = "ValueError: no") -> None:
        await self.stub.SubmitFailure(
            old.WorkFailedMessage(
                instanceId=node.instanceId, nodeId=node.identifier, workerId=worker, traceback=traceback
            )
        )

    async def get(self, instance: str, node: str) -> old.NodeMessage:
        return await self.stub.GetNode(old.NodeRetrieveMessage(instanceId=instance, identifier=node))
