"""A broker that says the demand that a test wants: a real gRPC server with WatchDemand, and a list of workers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import grpc

from dagorama.api import broker_pb2 as pb
from dagorama.api import broker_pb2_grpc as pb_grpc

#: Ends a stream of replies, as a broker that goes away does.
GONE = grpc.StatusCode.UNAVAILABLE
Said = pb.DemandReply | grpc.StatusCode


class DemandBroker(pb_grpc.BrokerServicer):
    """Answers WatchDemand with what a test puts into its queue."""

    def __init__(self) -> None:
        self.says: SimpleQueue[Said | None] = SimpleQueue()
        self.asked: list[pb.DemandRequest] = []
        self.workers: list[pb.WorkerInfo] = []
        self.is_private = False  #: its state is not for the token of the caller

    def WatchDemand(self, request: pb.DemandRequest, context: grpc.ServicerContext) -> Iterator[pb.DemandReply]:
        self.asked.append(request)
        while (said := self.says.get()) is not None:
            if isinstance(said, grpc.StatusCode):
                context.abort(said, "as the test says")
            yield said

    def GetStatus(self, request: pb.GetStatusRequest, context: grpc.ServicerContext) -> pb.Status:
        if self.is_private:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "as the test says")
        return pb.Status(workers=self.workers)


def new_broker() -> DemandBroker:
    return DemandBroker()  # type: ignore[abstract]  # pools call two of its methods


@contextmanager
def served(broker: Any, port: int = 0, host: str = "127.0.0.1") -> Iterator[int]:
    """Serve it for the block; the port stays free for the next one."""
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_BrokerServicer_to_server(broker, server)
    port = server.add_insecure_port(f"{host}:{port}")
    server.start()
    try:
        yield port
    finally:
        if isinstance(broker, DemandBroker):
            broker.says.put(None)
        server.stop(0).wait()
