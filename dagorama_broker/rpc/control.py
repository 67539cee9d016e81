"""Carries out what people ask for: pauses queues, drains workers, deletes instances."""

from __future__ import annotations

import logging

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import FailedPrecondition, InvalidArgument, NotFound
from dagorama_broker.model.actions import ActionKind, ActionRow
from dagorama_broker.rpc.overview import functions_by_queue, queue_info
from dagorama_broker.rpc.permissions import caller_name
from dagorama_broker.scheduler import Worker

log = logging.getLogger("dagorama_broker")

#: Bytes that the ID of a worker has, and the fewest that may stand for it.
ID_BYTES, LEAST = 16, 2
#: Workers that a refusal names.
NAMED = 3


async def pause_queue(broker: Broker, queue: str, resume: bool, keys: bool) -> pb.PauseQueueReply:
    """Pause or resume a queue; return when that is durable. Raise ResourceExhausted if too many are paused.

    `keys`: also end the pauses that nodes have asked for, of keys and shared limits of its functions.
    """
    scheduler, by = broker.scheduler, caller_name()
    broker.see_time()
    changed = scheduler.resume(queue) if resume else scheduler.pause(queue, by)
    ended = scheduler.resume_keys(queue) if resume and keys else 0
    info = queue_info(scheduler, queue, functions_by_queue(scheduler).get(queue, ()))
    if changed or ended:
        action = ActionKind.RESUME if resume else ActionKind.PAUSE
        scheduler.record_action(ActionRow(action, by, target=queue, nodes=info.queued))
        of_keys = f", and {ended} pauses of its keys and limits were ended" if ended else ""
        log.info("queue %r was %s%s", queue, "resumed" if resume else "paused", of_keys)
    await broker.commits.wait_durable()
    return pb.PauseQueueReply(changed=changed, queued=info.queued, claimed=info.claimed, ended=ended)


async def drain_worker(broker: Broker, id: bytes) -> pb.DrainWorkerReply:
    """Grant a worker nothing more and tell it to leave. Raise NotFound, FailedPrecondition or InvalidArgument."""
    worker = _with_prefix(broker, id)
    was_leaving = worker.pool is None
    broker.see_time()
    broker.drain(worker)
    held = sum(len(slot.held) for slot in worker.slots)
    if not was_leaving:
        by = caller_name()
        broker.scheduler.record_action(ActionRow(ActionKind.DRAIN, by, target=worker.info.name, nodes=held))
        log.info("worker %r is drained%s", worker.info.name, f" by {by}" if by else "")
        await broker.commits.wait_durable()
    return pb.DrainWorkerReply(name=worker.info.name, held=held, was_draining=was_leaving)


def _with_prefix(broker: Broker, prefix: bytes) -> Worker:
    if not LEAST <= len(prefix) <= ID_BYTES:
        raise InvalidArgument(f"the ID of a worker has {len(prefix)} bytes; {LEAST} to {ID_BYTES} are expected")
    found = [worker for id, worker in broker.scheduler.workers.items() if id.startswith(prefix)]
    if not found:
        raise NotFound(f"no connected worker has an ID that begins with {prefix.hex()}")
    if len(found) > 1:
        named = ", ".join(f"{worker.info.id.hex()} ({worker.info.name})" for worker in found[:NAMED])
        raise FailedPrecondition(
            f"several workers have IDs that begin with {prefix.hex()}; use more digits: {named}"
            + (", ..." if len(found) > NAMED else "")
        )
    return found[0]


async def delete_instance(broker: Broker, id: bytes) -> pb.DeleteReply:
    """Remove an instance with all that is kept of it. Raise NotFound or FailedPrecondition."""
    row, by = (await broker.lookups.stored_instance(id)).row, caller_name()
    nodes = await broker.commits.in_view(broker.store.view.size_of, row.key)
    await broker.retention.delete(id, ActionRow(ActionKind.DELETE, by, id, row.definition, nodes))
    log.info("instance %s was deleted%s", id.hex(), f" by {by}" if by else "")
    return pb.DeleteReply(nodes=nodes)
