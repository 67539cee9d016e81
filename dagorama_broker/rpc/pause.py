"""Pauses queues on request, and grants their nodes again."""

from __future__ import annotations

import logging

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.rpc.overview import functions_by_queue, queue_info
from dagorama_broker.rpc.permissions import caller

log = logging.getLogger("dagorama_broker")


async def pause_queue(broker: Broker, queue: str, resume: bool) -> pb.PauseQueueReply:
    """Pause or resume a queue; return when that is durable. Raise ResourceExhausted if too many are paused."""
    scheduler, token = broker.scheduler, caller.get()
    broker.see_time()
    changed = scheduler.resume(queue) if resume else scheduler.pause(queue, token.name if token is not None else "")
    await broker.commits.wait_durable()
    if changed:
        log.info("queue %r was %s", queue, "resumed" if resume else "paused")
    info = queue_info(scheduler, queue, functions_by_queue(scheduler).get(queue, ()))
    return pb.PauseQueueReply(changed=changed, queued=info.queued, claimed=info.claimed)
