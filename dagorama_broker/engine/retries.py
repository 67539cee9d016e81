"""Retries nodes on request: reads the failed ones, and what failed because of them, before the scheduler decides."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.downstream import closure, users_of
from dagorama_broker.engine.loading import Loaded
from dagorama_broker.errors import FailedPrecondition
from dagorama_broker.model.actions import ActionKind, ActionRow
from dagorama_broker.model.domain import EagerState, Rebinding, State, WireProtocol, unpack_keys
from dagorama_broker.model.queries import EndedNode, Failed, FoundNode, is_made
from dagorama_broker.scheduler import Node, Obstacle, RecentFailure, Retried, refuse_uncovered

#: Seconds that a caller may wait at most for unschedulable nodes to be found.
LONGEST_PATIENCE = 10.0


class Asked(NamedTuple):
    """The nodes that a caller wants to retry."""

    instance: bytes
    ids: Sequence[bytes] = ()  #: of nodes; empty: all that failed in the instance
    downstream: bool = False  #: also nodes that were given one of the failures as a value, and what depends on them
    new_code: bool = False  #: run by the code that is deployed when it runs
    rebindings: Sequence[Rebinding] = ()  #: allow `new_code`
    by: str = ""  #: name of the caller's token, for the record of the action
    waits: Mapping[bytes, int] = {}  #: with `downstream`, nodes that wait for another signal, and their last attempts


class Done(NamedTuple):
    revived: Retried
    nodes: list[Node]  #: that run or wait again


async def retry(broker: Broker, asked: Asked) -> Done:
    """Retry these nodes of an instance, or all failed ones, together with the nodes that failed because of them.

    If a node failed because of another node, that other node is retried. Unfinished and completed nodes stay as they
    are unless they are downstream, or are in `asked.waits`. Raises NotFound, InvalidArgument or FailedPrecondition, and
    then nothing has changed.
    """
    async with broker.retry_lock:
        with broker.lookups.holds.on(asked.instance):
            done = await _retry(broker, asked)
    await broker.commits.wait_durable()
    return done


async def _retry(broker: Broker, asked: Asked) -> Done:
    failed = await _failed(broker, asked)
    # Nothing is awaited from the last read to the scheduler: what was read is still valid.
    now = broker.see_time()
    new_code = None
    if asked.new_code:
        refuse_uncovered(_code_to_rebind(broker, asked, failed), asked.rebindings, asked.instance)
        new_code = _waiting_for_old_code(broker, asked)
    revived = broker.scheduler.retry(failed, now, asked.downstream, new_code, asked.rebindings)
    if count := revived.queued + revived.waiting or revived.rebound:
        broker.scheduler.record_action(ActionRow(ActionKind.RETRY, asked.by, asked.instance, nodes=count))
    if revived.completed:
        broker.forget({row.instance for row in failed.nodes})
    return Done(revived, [node for row in failed.nodes if (node := broker.scheduler.nodes.get(row.key))])


async def look(broker: Broker, asked: Asked) -> dict[str, set[str]]:
    """Return the code that a retry with new code would replace, by the names of functions."""
    async with broker.retry_lock:
        with broker.lookups.holds.on(asked.instance):
            failed = await _failed(broker, asked)
            found: dict[str, set[str]] = {}
            for name, code in _code_to_rebind(broker, asked, failed):
                found.setdefault(name, set()).add(code)
            return found


async def _failed(broker: Broker, asked: Asked) -> Failed:
    """Read all nodes that are queued or wait again."""
    root_causes = await (_of_nodes(broker, asked) if asked.ids else _of_instance(broker, asked.instance))
    seeds = await _seeds(broker, asked) if asked.downstream else set()
    if not root_causes and not seeds:
        return Failed([], [], [], [], {}, {}, set())
    await _refuse_unsettled(broker, root_causes | seeds)
    return await _read(broker, root_causes, seeds, asked.downstream)


def _code_to_rebind(broker: Broker, asked: Asked, failed: Failed) -> set[tuple[str, str]]:
    """Return the names of functions whose nodes a retry binds to new code, and the code that they were made with."""
    scheduler = broker.scheduler
    own = {stored.row.key for stored in failed.instances if stored.row.id == asked.instance}
    queues = {row.function for row in failed.nodes if row.instance in own}
    functions = [scheduler.function_queues[queue].function for queue in queues]
    others = [*_waiting_for_old_code(broker, asked), *scheduler.waiting_for(failed)]
    waiting = scheduler.with_dependents(failed, others)
    return {(function.name, function.code) for function in functions if function.protocol is WireProtocol.V1} | {
        (node.queue.function.name, scheduler.code_of(node)) for node in waiting
        if node.queue.function.protocol is WireProtocol.V1 and node.instance.id == asked.instance
    }  # fmt: skip


def _waiting_for_old_code(broker: Broker, asked: Asked) -> list[Node]:
    """Return the named nodes that are unfinished, or nodes of the instance queued for code that no worker has."""
    if asked.ids:
        return [node for id in asked.ids if (node := broker.scheduler.node(id)) is not None]
    return broker.scheduler.waiting_for_old_code(asked.instance)


async def unservable(broker: Broker, nodes: Iterable[Node], patience: float) -> list[Obstacle]:
    """Return the functions of queued ones of these nodes that no connected worker may run, and why.

    Waits up to `patience` seconds, or until the nodes have ended, for workers to return such nodes: only then it is
    known that they have other code.
    """
    queued = [node for node in nodes if node.state in (State.QUEUED, State.CLAIMED)]
    found: list[Obstacle] = []
    with broker.hearing_returns() as returned, suppress(TimeoutError):
        async with asyncio.timeout(min(patience, LONGEST_PATIENCE)):
            while True:
                queued = [node for node in queued if node.state in (State.QUEUED, State.CLAIMED)]
                found = _unservable(broker, queued)
                if len(found) == len({node.queue.base for node in queued}):
                    break
                await returned.wait()
                returned.clear()
    return found


def _unservable(broker: Broker, nodes: Iterable[Node]) -> list[Obstacle]:
    queues = dict.fromkeys([node.queue.base for node in nodes if node.state is State.QUEUED])
    return [Obstacle(queue, queue.queued, reason) for queue, reason in broker.scheduler.unschedulable(queues)]


async def _of_instance(broker: Broker, instance: bytes) -> set[int]:
    """Return the root causes of all failures in an instance, except for children of aborted attempts."""
    bad = await broker.commits.in_store(
        broker.store.failed_ends, (await broker.lookups.stored_instance(instance)).row.key
    )
    failed = {end.root_cause for end in bad if end.state == State.FAILED}
    if bad and not failed:
        raise FailedPrecondition("nothing in it failed; cancelled nodes cannot be retried, submit a new instance")
    eager_states = await broker.commits.in_store(broker.store.eager_states, sorted(failed))
    return {key for key in failed if eager_states.get(key) is not EagerState.ABORTED}


async def _of_nodes(broker: Broker, asked: Asked) -> set[int]:
    """Return the root causes of the failed ones of these nodes."""
    found = await broker.lookups.find_nodes(asked.instance, asked.ids)
    return {root_cause for id in asked.ids if (root_cause := _root_cause(found[id]))}


async def _seeds(broker: Broker, asked: Asked) -> set[int]:
    """Return completed nodes that run or wait again."""
    return await _waits_again(broker, asked) | await _with_used_failures(broker, asked)


async def _waits_again(broker: Broker, asked: Asked) -> set[int]:
    """Return the nodes that wait for another signal. A call that is repeated after they have got it changes nothing."""
    found = await ended_waits(broker, asked.instance, list(asked.waits))
    return {ended.key for id, ended in found.items() if ended.attempt == asked.waits[id]}


async def ended_waits(broker: Broker, instance: bytes, ids: Sequence[bytes]) -> dict[bytes, EndedNode]:
    """Return the nodes, of these, that have got the signal they waited for, or have taken their default.

    Raises NotFound or InvalidArgument.
    """
    found = await broker.lookups.find_nodes(instance, ids) if ids else {}
    ended = {
        id: node.ended for id, node in found.items() if node.ended is not None and node.ended.state == State.COMPLETED
    }
    if not ended:
        return {}
    waits = await broker.commits.in_view(broker.store.view.waits, [node.key for node in ended.values()])
    return {id: node for id, node in ended.items() if node.key in waits}


async def _with_used_failures(broker: Broker, asked: Asked) -> set[int]:
    """Return nodes that were given a failure which was retried earlier; with IDs, those among or right after them."""
    instance = (await broker.lookups.stored_instance(asked.instance)).row.key
    used = await broker.commits.in_store(broker.store.used_failures, instance)
    if asked.ids:
        found = await broker.commits.in_store(broker.store.find, list(asked.ids))
        named = {node.key for node in found.values()}
        described = await broker.commits.in_store(broker.store.described, used)
        used = [
            node.key for node in described.values()
            if node.key in named or any(-key in named for key in unpack_keys(node.sources))
        ]  # fmt: skip
    eager_states = await broker.commits.in_store(broker.store.eager_states, used)
    return {key for key in used if eager_states.get(key) is not EagerState.ABORTED and not _is_unfinished(broker, key)}


def _is_unfinished(broker: Broker, key: int) -> bool:
    """Return whether a node runs again already. Raises FailedPrecondition if it waits for promises that it returned."""
    node = broker.scheduler.nodes.get(key)
    if node is None or node.state is not State.RESOLVING:
        return node is not None
    assert node.block is not None
    raise FailedPrecondition(
        f"node {node.block.id_of(key).hex()} has not ended and was given the failure as a value: "
        "retry when it has ended, or cancel it first"
    )


def _root_cause(found: FoundNode) -> int:
    """Return the key of the node whose failure a node shares; 0: it did not fail. Raises FailedPrecondition."""
    ended = found.ended
    if ended is not None and ended.state == State.CANCELLED:
        raise FailedPrecondition(
            f"node {found.id.hex()} was cancelled; cancelled nodes cannot be retried, submit a new instance"
        )
    return ended.root_cause if ended is not None and ended.state == State.FAILED else 0


async def _refuse_unsettled(broker: Broker, root_causes: set[int]) -> None:
    """Raise FailedPrecondition if an eager attempt made one of these nodes, unless that attempt has completed."""
    eager_states = await broker.commits.in_store(broker.store.eager_states, sorted(root_causes))
    for key, eager_state in eager_states.items():
        if eager_state is not EagerState.COMMITTED:
            id = (await broker.commits.in_store(broker.store.ids, [key]))[key]
            what = (
                "has not ended: retry when it has"
                if eager_state is EagerState.OPEN
                else "was rolled back: retry its parent"
            )
            raise FailedPrecondition(f"the run that made node {id.hex()} {what}")


async def _read(broker: Broker, root_causes: set[int], seeds: set[int], downstream: bool) -> Failed:
    """Read all nodes that are retried, again until nothing was missed while the store was read."""
    scheduler = broker.scheduler
    load = Loaded(broker.store)
    broker.loading.under_way.add(load)
    try:
        while True:
            late = scheduler.record_ends()
            load.gone.clear()
            await broker.commits.settled()
            await broker.commits.wait_durable()
            read = _read_downstream(broker, root_causes, seeds) if downstream else _read_failed(broker, root_causes)
            failed = await read
            if not scheduler.is_settled:
                continue  # more failures may be recorded in a moment
            is_there = load.gone.isdisjoint(stored.row.key for stored in failed.instances)
            is_there = is_there and scheduler.is_within_reach(failed)
            if is_there and not _is_missed(late, failed, root_causes, downstream):
                own = {row.key for row in failed.nodes}
                failed.others.update(end.instance for end in late if end.root_cause and end.key not in own)
                return failed
    finally:
        scheduler.stop_recording_ends()
        broker.loading.under_way.discard(load)


def _is_missed(late: Iterable[RecentFailure], failed: Failed, root_causes: set[int], downstream: bool) -> bool:
    """Return whether a node that ended while the store was read should have been read."""
    own = {row.key for row in failed.nodes}
    return any(
        end.root_cause in root_causes or (not end.needed.isdisjoint(own) and (downstream or not end.root_cause))
        or is_made(failed.made, end.key) or end.key in failed.resolving
        for end in late if end.key not in own
    )  # fmt: skip


async def _read_failed(broker: Broker, root_causes: set[int]) -> Failed:
    failed = await broker.commits.in_store(broker.store.failed, sorted(root_causes))
    own, instances = {row.key for row in failed.nodes}, {row.instance for row in failed.nodes}
    failed.used = await users_of(broker, own, instances)
    return failed


async def _read_downstream(broker: Broker, root_causes: set[int], seeds: set[int]) -> Failed:
    first = await broker.commits.in_store(broker.store.failed, sorted(root_causes), sorted(seeds), sorted(seeds))
    keys = {row.key for row in first.nodes}
    found = await closure(broker, keys - seeds, seeds & keys, {row.instance for row in first.nodes})
    await _refuse_unsettled(broker, found.nodes - keys)
    failed = await broker.commits.in_store(broker.store.failed, sorted(root_causes), found.nodes, found.reruns)
    failed.resolving = found.resolving
    return failed
