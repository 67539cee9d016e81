"""Follow what happens in an instance: `events(instance)` yields each change of a node, for people and displays.

The rule: events are for display, not for decisions. They are delivered at most once, and a `Gap` stands for lost ones.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any
from uuid import UUID

from dagorama.api import broker_pb2
from dagorama.client.connection import Connection, connection
from dagorama.client.following import Following
from dagorama.client.waiter import check_instance
from dagorama.context import is_held_back
from dagorama.errors import BrokerError, PromiseMisuse
from dagorama.models.events import Event, EventKind, Gap, InstanceEnded, NodeEvent
from dagorama.models.promise import InstanceRef

_KINDS = list(EventKind)


class Events(Following[Event]):
    """The events of an instance; iterate over it with `for` or `async for`."""

    def __init__(self, broker: Connection, instance: bytes) -> None:
        super().__init__(broker, instance)
        self._has_begun = False

    def _opened(self) -> Any:
        return self._broker.stub.Events(broker_pb2.EventsRequest(instance=self._instance))

    def _items(self, call: Any) -> Generator[Event, None, bool]:
        for batch in call:
            if self._has_begun and not (batch.events or batch.ended or batch.lost):
                yield Gap(None)  # the first batch of another call
            self._has_begun = True
            if batch.lost:
                yield Gap(batch.lost)
            for event in batch.events:
                yield _node_event(event, batch)
            if batch.ended:
                yield InstanceEnded(batch.failed, batch.ended_at)
                return True
        return False


def events(instance: InstanceRef) -> Events:
    """Return what happens in an instance from now on, to be iterated over with `for` or `async for`.

    Use it for display only: events are delivered at most once. Each item is a `NodeEvent`, a `Gap` in place of events
    that were lost because the reader was too slow or the broker was restarted, or at the end an `InstanceEnded`. They
    come in batches, at most four a second. Raises NotFound if there is no such instance, and BrokerUnavailable if the
    broker stays away.
    """
    check_instance("events()", instance)
    if is_held_back(instance.instance_id.bytes):
        raise PromiseMisuse(f"{instance!r} was made in a `with batch():` block: follow it after the block")
    return Events(connection(), instance.instance_id.bytes)


def _node_event(event: broker_pb2.NodeEvent, batch: broker_pb2.EventBatch) -> NodeEvent:
    try:
        kind, function = _KINDS[event.kind], batch.functions[event.function]
    except IndexError:
        raise BrokerError(
            "unexpected event from the broker; check that the versions of client and broker match", "INTERNAL"
        ) from None
    return NodeEvent(kind, UUID(bytes=event.node), function, event.time, event.attempt, event.reason, event.retry_at)
