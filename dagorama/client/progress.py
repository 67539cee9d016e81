"""Follow an instance: `watch(instance)` yields its progress whenever it has changed, until it has ended.

The rule: a watch outlives restarts of the broker, and a slow reader gets the latest progress, not each one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from dagorama.api import broker_pb2
from dagorama.client.connection import Connection, connection
from dagorama.client.waiter import check_instance
from dagorama.context import is_held_back
from dagorama.errors import BrokerOverloaded, BrokerUnavailable, PromiseMisuse
from dagorama.models.progress import FunctionProgress, Progress
from dagorama.models.promise import InstanceRef
from dagorama.models.state import State

if TYPE_CHECKING:
    import grpc


class Watch:
    """The progress of an instance over time; iterate over it with `for` or `async for`."""

    def __init__(self, broker: Connection, instance: bytes) -> None:
        self._broker = broker
        self._instance = instance
        self._call: Any = None
        self._is_closed = False

    def __iter__(self) -> Iterator[Progress]:
        import grpc

        while not self._is_closed:
            self._call = self._broker.stub.Watch(broker_pb2.WatchRequest(instance=self._instance))
            try:
                for reply in self._call:
                    yield progress_of(reply)
                    if reply.ended:
                        return
            except grpc.RpcError as error:
                if self._is_closed:
                    return
                self._check(error)
            finally:
                self._call.cancel()
            self._broker.get_instance(self._instance)  # waits until the broker answers, or raises

    def _check(self, error: grpc.RpcError) -> None:
        """Raise our error unless it is a temporary one."""
        failure = self._broker.error_of(error)
        if not isinstance(failure, BrokerUnavailable | BrokerOverloaded):
            raise failure from None

    async def __aiter__(self) -> AsyncIterator[Progress]:
        steps = iter(self)
        try:
            while (progress := await asyncio.to_thread(next, steps, None)) is not None:
                yield progress
        finally:
            self.close()

    def close(self) -> None:
        """End the iteration, also one that waits in another thread."""
        self._is_closed = True
        if self._call is not None:
            self._call.cancel()


def watch(instance: InstanceRef) -> Watch:
    """Return the progress of an instance, to be iterated over with `for` or `async for`.

    Each step is a `Progress`: how many nodes of each function are done, running, waiting and failed. The first one
    comes at once, others when the counts have changed, at most two a second, and the last one when the instance has
    ended. Raises NotFound if there is no such instance, and BrokerUnavailable if the broker stays away.
    """
    check_instance("watch()", instance)
    if is_held_back(instance.instance_id.bytes):
        raise PromiseMisuse(f"{instance!r} was made in a `with batch():` block: watch it after the block")
    return Watch(connection(), instance.instance_id.bytes)


def progress_of(reply: broker_pb2.Progress) -> Progress:
    """Return the progress in a message."""
    return Progress(
        functions=tuple(
            FunctionProgress(
                each.function,
                {State(number): nodes for number, nodes in enumerate(each.nodes) if nodes},
                each.timed,
                each.run_seconds,
                each.longest_seconds,
            )
            for each in reply.functions
        ),
        definition=reply.definition,
        created=reply.created,
        ended_at=reply.ended_at if reply.ended else None,
        has_failed=reply.failed,
        left_out=reply.left_out,
    )
