"""Retrying on request: what failed, and what failed because of it, is read from the store before the heart is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.downstream import closure, users_of
from dagorama_broker.engine.loading import Reach
from dagorama_broker.errors import Malformed, NotAllowedNow, NotKnown
from dagorama_broker.model.domain import Adoption, Fate, State, World
from dagorama_broker.model.queries import Failed, FoundNode, is_made
from dagorama_broker.scheduler import Node, Obstacle, Revived, is_within_reach
from dagorama_broker.scheduler.graph import Noticed
from dagorama_broker.scheduler.rebind import code_of, refuse_uncovered
from dagorama_broker.scheduler.restore import unpack_keys
from dagorama_broker.scheduler.retry import waiting_for, with_dependents

#: Seconds that a caller may wait at most to hear of nodes that nobody may run.
LONGEST_PATIENCE = 10.0


class Asked(NamedTuple):
    """What a caller wants retried."""

    instance: bytes
    ids: Sequence[bytes] = ()  #: of nodes; empty: all that failed in the instance
    downstream: bool = False  #: also what was given one of the failures as a value, and what depends on that
    new_code: bool = False  #: run by the code that is deployed when it runs
    adoptions: Sequence[Adoption] = ()  #: allow `new_code`


class Done(NamedTuple):
    revived: Revived
    nodes: list[Node]  #: that run or wait again


async def retry(broker: Broker, asked: Asked) -> Done:
    """Have these nodes of an instance run again, or all in it that failed, with what failed because of them.

    A node that failed because of another stands for that one; what has not ended, or has completed, stays as it is
    unless it is downstream. Raises NotKnown, Malformed or NotAllowedNow, and then nothing has changed.
    """
    async with broker.retry_lock:
        with broker.holds.on(asked.instance):
            done = await _retry(broker, asked)
    await broker.durable()
    return done


async def _retry(broker: Broker, asked: Asked) -> Done:
    failed = await _failed(broker, asked)
    # Nothing is awaited between the last look and the heart: what was read is still so.
    now = broker.see_time()
    new_code = None
    if asked.new_code:
        refuse_uncovered(_code_to_adopt(broker, asked, failed), asked.adoptions, asked.instance)
        new_code = _waiting_for_old_code(broker, asked)
    revived = broker.scheduler.retry(failed, now, asked.downstream, new_code, asked.adoptions)
    if revived.completed:
        broker.forget({row.instance for row in failed.nodes})
    return Done(revived, [node for row in failed.nodes if (node := broker.scheduler.graph.nodes.get(row.key))])


async def look(broker: Broker, asked: Asked) -> dict[str, set[str]]:
    """Which code a retry with new code would adopt, by the names of functions: the code that nodes were made with."""
    async with broker.retry_lock:
        with broker.holds.on(asked.instance):
            failed = await _failed(broker, asked)
            found: dict[str, set[str]] = {}
            for name, code in _code_to_adopt(broker, asked, failed):
                found.setdefault(name, set()).add(code)
            return found


async def _failed(broker: Broker, asked: Asked) -> Failed:
    """All that goes back to the queue or waits again."""
    culprits = await (_of_nodes(broker, asked) if asked.ids else _of_instance(broker, asked.instance))
    seeds = await _seeds(broker, asked) if asked.downstream else set()
    if not culprits and not seeds:
        return Failed([], [], [], [], {}, {}, set())
    await _refuse_unsettled(broker, culprits | seeds)
    return await _read(broker, culprits, seeds, asked.downstream)


def _code_to_adopt(broker: Broker, asked: Asked, failed: Failed) -> set[tuple[str, str]]:
    """Names of functions whose nodes a retry would have run by new code, and the code that these were made with."""
    graph = broker.scheduler.graph
    own = {stored.row.key for stored in failed.instances if stored.row.id == asked.instance}
    lanes = {row.function for row in failed.nodes if row.instance in own}
    functions = [graph.lane_by_id[lane].function for lane in lanes]
    waiting = with_dependents(graph, failed, [*_waiting_for_old_code(broker, asked), *waiting_for(graph, failed)])
    return {(function.name, function.code) for function in functions if function.world is World.OURS} | {
        (node.lane.function.name, code_of(graph, node)) for node in waiting
        if node.lane.function.world is World.OURS and node.instance.id == asked.instance
    }  # fmt: skip


def _waiting_for_old_code(broker: Broker, asked: Asked) -> list[Node]:
    """Unfinished nodes that are named; or those of the instance that are queued for code which workers do not have."""
    graph, dispatch = broker.scheduler.graph, broker.scheduler.dispatch
    if asked.ids:
        return [node for id in asked.ids if (node := graph.find(id)) is not None]
    queued = [node for node in graph.unfinished_of(asked.instance) if node.state is State.QUEUED]
    old = {lane for lane in {node.lane for node in queued} if dispatch.needs_adoption(lane)}
    return [node for node in queued if node.lane in old]


async def unservable(broker: Broker, nodes: Iterable[Node], patience: float) -> list[Obstacle]:
    """Return the functions of queued ones of these nodes that no connected worker may run, and why.

    Waits up to `patience` seconds for workers to give such nodes back, which is how it becomes known that they have
    other code; not for longer than until the nodes have ended.
    """
    queued = [node for node in nodes if node.state in (State.QUEUED, State.CLAIMED)]
    found: list[Obstacle] = []
    with broker.hearing_returns() as returned, suppress(TimeoutError):
        async with asyncio.timeout(min(patience, LONGEST_PATIENCE)):
            while True:
                queued = [node for node in queued if node.state in (State.QUEUED, State.CLAIMED)]
                found = _unservable(broker, queued)
                if len(found) == len({node.lane.base for node in queued}):
                    break
                await returned.wait()
                returned.clear()
    return found


def _unservable(broker: Broker, nodes: Iterable[Node]) -> list[Obstacle]:
    lanes = dict.fromkeys([node.lane.base for node in nodes if node.state is State.QUEUED])
    return [Obstacle(lane, lane.queued, reason) for lane, reason in broker.scheduler.dispatch.unservable(lanes)]


async def _of_instance(broker: Broker, instance: bytes) -> set[int]:
    """The culprits of all that failed in it, but for what dead attempts have made."""
    bad = await broker.in_store(broker.store.bad_ends, (await broker.stored_instance(instance)).row.key)
    failed = {end.culprit for end in bad if end.state == State.FAILED}
    if bad and not failed:
        raise NotAllowedNow("nothing in it failed: what was cancelled is not run again, make it anew")
    fates = await broker.in_store(broker.store.fates_of, sorted(failed))
    return {key for key in failed if fates.get(key) is not Fate.DEAD}


async def _of_nodes(broker: Broker, asked: Asked) -> set[int]:
    """The culprits of those of these nodes that failed."""
    key = (await broker.stored_instance(asked.instance)).row.key
    found = await broker.in_store(broker.store.find, list(asked.ids))
    return {culprit for id in asked.ids if (culprit := _culprit(found.get(id), id, key))}


async def _seeds(broker: Broker, asked: Asked) -> set[int]:
    """Nodes that were given a failure which has been retried before this; with ids, those among or right after them."""
    instance = (await broker.stored_instance(asked.instance)).row.key
    used = await broker.in_store(broker.store.used_failures, instance)
    if asked.ids:
        found = await broker.in_store(broker.store.find, list(asked.ids))
        named = {node.key for node in found.values()}
        described = await broker.in_store(broker.store.described, used)
        used = [
            node.key for node in described.values()
            if node.key in named or any(-key in named for key in unpack_keys(node.sources))
        ]  # fmt: skip
    fates = await broker.in_store(broker.store.fates_of, used)
    return {key for key in used if fates.get(key) is not Fate.DEAD and not _is_unfinished(broker, key)}


def _is_unfinished(broker: Broker, key: int) -> bool:
    """Whether it runs again already. Raises NotAllowedNow if it has returned, and waits for its promises."""
    node = broker.scheduler.graph.nodes.get(key)
    if node is None or node.state is not State.RESOLVING:
        return node is not None
    assert node.run is not None
    raise NotAllowedNow(
        f"node {node.run.id_of(key).hex()} has not ended and was given the failure as a value: "
        "retry when it has ended, or cancel it first"
    )


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


async def _read(broker: Broker, culprits: set[int], seeds: set[int], downstream: bool) -> Failed:
    """All that goes back, until nothing has been missed while the store was read."""
    graph = broker.scheduler.graph
    load = Reach()
    broker.loads.add(load)
    try:
        while True:
            graph.noticed = []
            load.gone.clear()
            await broker.settled()
            await broker.durable()
            read = _read_downstream(broker, culprits, seeds) if downstream else _read_failed(broker, culprits)
            failed = await read
            if graph.untold or graph.starting:
                continue  # more of what failed because of them may be about to be recorded
            if load.gone.isdisjoint(stored.row.key for stored in failed.instances) and is_within_reach(graph, failed):
                late = graph.noticed
                if not _is_missed(late, failed, culprits, downstream):
                    own = {row.key for row in failed.nodes}
                    failed.others.update(end.instance for end in late if end.culprit and end.key not in own)
                    return failed
    finally:
        graph.noticed = None
        broker.loads.discard(load)


def _is_missed(late: Iterable[Noticed], failed: Failed, culprits: set[int], downstream: bool) -> bool:
    """Whether one of these nodes, which ended while the store was read, should be among what was read."""
    own = {row.key for row in failed.nodes}
    return any(
        end.culprit in culprits or (not end.needed.isdisjoint(own) and (downstream or not end.culprit))
        or is_made(failed.made, end.key) or end.key in failed.resolving
        for end in late if end.key not in own
    )  # fmt: skip


async def _read_failed(broker: Broker, culprits: set[int]) -> Failed:
    failed = await broker.in_store(broker.store.failed, sorted(culprits))
    own, instances = {row.key for row in failed.nodes}, {row.instance for row in failed.nodes}
    failed.used = await users_of(broker, own, instances)
    return failed


async def _read_downstream(broker: Broker, culprits: set[int], seeds: set[int]) -> Failed:
    first = await broker.in_store(broker.store.failed, sorted(culprits), sorted(seeds), sorted(seeds))
    keys = {row.key for row in first.nodes}
    found = await closure(broker, keys - seeds, seeds & keys, {row.instance for row in first.nodes})
    await _refuse_unsettled(broker, found.nodes - keys)
    failed = await broker.in_store(broker.store.failed, sorted(culprits), found.nodes, found.reruns)
    failed.resolving = found.resolving
    return failed
