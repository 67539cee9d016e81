"""Retrying on request: what failed, and what failed because of it, is read from the store before the heart is asked."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama_broker.broker import Broker
from dagorama_broker.errors import Malformed, NotAllowedNow, NotKnown
from dagorama_broker.model import Failed, Fate, FoundNode, State
from dagorama_broker.reaching import Reach
from dagorama_broker.scheduler import Revived, is_within_reach


async def retry(broker: Broker, instance: bytes, ids: Sequence[bytes]) -> Revived:
    """Have these nodes of an instance run again, or all in it that failed, with what failed because of them.

    A node that failed because of another stands for that one; what has not ended, or has completed, stays as it is.
    Raises NotKnown, Malformed or NotAllowedNow, and then nothing has changed.
    """
    async with broker.retry_lock:
        with broker.holds.on(instance):
            revived = await _retry(broker, instance, ids)
    await broker.durable()
    return revived


async def _retry(broker: Broker, instance: bytes, ids: Sequence[bytes]) -> Revived:
    culprits = await (_of_nodes(broker, instance, ids) if ids else _of_instance(broker, instance))
    if not culprits:
        return Revived(0, 0)
    await _refuse_unsettled(broker, culprits)
    failed = await _read(broker, culprits)
    # Nothing is awaited between the last look and the heart: what was read is still so.
    broker.see_time()
    return broker.scheduler.retry(failed)


async def _of_instance(broker: Broker, instance: bytes) -> set[int]:
    """The culprits of all that failed in it."""
    bad = await broker.in_store(broker.store.bad_ends, (await broker.stored_instance(instance)).row.key)
    failed = {end.culprit for end in bad if end.state == State.FAILED}
    if bad and not failed:
        raise NotAllowedNow("nothing in it failed: what was cancelled is not run again, make it anew")
    return failed


async def _of_nodes(broker: Broker, instance: bytes, ids: Sequence[bytes]) -> set[int]:
    """The culprits of those of these nodes that failed."""
    key = (await broker.stored_instance(instance)).row.key
    found = await broker.in_store(broker.store.find, list(ids))
    return {culprit for id in ids if (culprit := _culprit(found.get(id), id, key))}


def _culprit(found: FoundNode | None, id: bytes, instance: int) -> int:
    """Of a node that failed; 0: it did not."""
    if found is None:
        raise NotKnown(f"node {id.hex()} is not known to this broker")
    if found.instance != instance:
        raise Malformed(f"node {id.hex()} is of another instance")
    ended = found.ended
    if ended is not None and ended.state == State.CANCELLED:
        raise NotAllowedNow(f"node {id.hex()} was cancelled, and what was cancelled is not run again: make it anew")
    return ended.culprit if ended is not None and ended.state == State.FAILED else 0


async def _refuse_unsettled(broker: Broker, culprits: set[int]) -> None:
    """Raise where an eager attempt made one of them which came to nothing, or yet may; once released, it stays so."""
    fates = await broker.in_store(broker.store.fates_of, sorted(culprits))
    for key, fate in fates.items():
        if fate is not Fate.RELEASED:
            id = (await broker.in_store(broker.store.ids, [key]))[key]
            what = "has not ended: retry when it has" if fate is Fate.OPEN else "came to nothing: retry what it was of"
            raise NotAllowedNow(f"the run that made node {id.hex()} {what}")


async def _read(broker: Broker, culprits: set[int]) -> Failed:
    """All that failed because of them, until nothing has been missed while the store was read."""
    graph = broker.scheduler.graph
    load = Reach()
    broker.loads.add(load)
    try:
        while True:
            graph.noticed = []
            load.gone.clear()
            await broker.durable()
            failed = await broker.in_store(broker.store.failed, sorted(culprits))
            own = {row.key for row in failed.nodes}
            late = [end for end in graph.noticed if end[0] not in own]
            is_whole = load.gone.isdisjoint(stored.row.key for stored in failed.instances)
            if is_whole and is_within_reach(graph, failed) and not any(end[2] in culprits for end in late):
                failed.others.update(instance for _, instance, _ in late)
                return failed
    finally:
        graph.noticed = None
        broker.loads.discard(load)
