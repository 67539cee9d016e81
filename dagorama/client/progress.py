"""Follow an instance: `watch(instance)` yields its progress whenever it has changed, until it has ended.

The rule: a watch outlives restarts of the broker, and a slow reader gets the latest progress, not each one.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any
from uuid import UUID

from dagorama.api import broker_pb2
from dagorama.client.connection import connection
from dagorama.client.following import Following
from dagorama.client.waiter import check_instance
from dagorama.context import is_held_back
from dagorama.errors import PromiseMisuse
from dagorama.models.log_record import NodeReport
from dagorama.models.progress import FunctionProgress, Progress
from dagorama.models.promise import InstanceRef
from dagorama.models.state import State


class Watch(Following[Progress]):
    """The progress of an instance over time; iterate over it with `for` or `async for`."""

    def _opened(self) -> Any:
        return self._broker.stub.Watch(broker_pb2.WatchRequest(instance=self._instance))

    def _items(self, call: Any) -> Generator[Progress, None, bool]:
        for reply in call:
            yield progress_of(reply)
            if reply.ended:
                return True
        return False

    def now(self) -> Progress:
        """Return the state of this moment."""
        request = broker_pb2.WatchRequest(instance=self._instance, now=True)
        return progress_of(self._broker.progress_now(request))


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
        reports=tuple(
            NodeReport(
                UUID(bytes=each.node),
                each.function,
                each.message,
                each.fraction if each.HasField("fraction") else None,
                each.time,
            )
            for each in reply.reports
        ),
    )
