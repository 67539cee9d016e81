"""Replies to WatchQueues: the unfinished nodes of the broker by queue, again whenever they have changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.commits import CALL_AGAIN
from dagorama_broker.errors import Unavailable
from dagorama_broker.rpc.following import hearing_of_leave, pause
from dagorama_broker.rpc.overview import functions_by_queue, queue_info

#: Seconds from one reply to the next.
INTERVAL = 0.5
#: Queues in one reply, and the bytes of them together.
MOST_QUEUES, MOST_BYTES = 1_000, 1 << 20


class ActivityReader:
    """Counts the unfinished nodes of all queues, at most once in a while for all who watch."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._infos: list[pb.QueueInfo] = []
        self._read_at = 0.0

    async def watch(self, queue: str, now: bool) -> AsyncGenerator[pb.Activity, None]:
        """Yield the activity of all queues, or of one, whenever it has changed; with `now`, once."""
        said: pb.Activity | None = None
        with hearing_of_leave(self._broker) as leaving:
            while not self._broker.is_leaving:
                found = self._read(queue, fresh=now)
                if found != said:
                    said = found
                    yield found
                if now:
                    return
                await pause(INTERVAL, leaving)
        raise Unavailable(CALL_AGAIN)

    def _read(self, queue: str, *, fresh: bool) -> pb.Activity:
        scheduler = self._broker.scheduler
        infos = self._queues(fresh)
        if queue:
            infos = [info for info in infos if info.queue == queue] or [queue_info(scheduler, queue, ())]
        listed = _fitting(infos)
        return pb.Activity(
            queues=listed,
            left_out=len(infos) - len(listed),
            nodes=scheduler.counts,
            instances=len(scheduler.instances),
            workers=len(scheduler.workers),
            slots=sum(not slot.closed for worker in scheduler.workers.values() for slot in worker.slots),
        )

    def _queues(self, fresh: bool) -> list[pb.QueueInfo]:
        """Return the counts of all queues, the ones with most nodes first: of now, or of half an interval ago."""
        now = asyncio.get_running_loop().time()
        if fresh or now - self._read_at >= INTERVAL / 2:
            scheduler = self._broker.scheduler
            infos = [queue_info(scheduler, name, its) for name, its in functions_by_queue(scheduler).items()]
            infos.sort(key=lambda info: (-(info.queued + info.claimed + info.delayed), info.queue))
            self._infos, self._read_at = infos, now
        return self._infos


def _fitting(infos: list[pb.QueueInfo]) -> list[pb.QueueInfo]:
    size, found = 0, list[pb.QueueInfo]()
    for info in infos[:MOST_QUEUES]:
        size += info.ByteSize()
        if size > MOST_BYTES and found:
            break
        found.append(info)
    return found
