"""Cancels nodes on request, in slices, and answers when all of it is durable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.lookups import check_instance
from dagorama_broker.model.actions import ActionKind, ActionRow
from dagorama_broker.scheduler import Node, Tally


async def cancel(broker: Broker, instance: bytes, ids: Sequence[bytes], by: str) -> int:
    """Cancel these nodes of an instance, or all of it, with what depends on them; return how many were cancelled.

    `by` is the name of the caller's token, for the record of the action. Ended nodes stay as they are. If the broker
    dies between two slices, some of the nodes are cancelled, and the client calls again. Raises NotFound or
    InvalidArgument, and then nothing has changed.
    """
    nodes = iter(await _live(broker, instance, ids) if ids else await _all(broker, instance))
    tally, step, recorded = Tally(), broker.scheduler.limits.step, 0
    while portion := list(islice(nodes, step)):
        broker.scheduler.cancel(portion, broker.see_time(), tally)
        if not tally.open and broker.scheduler.instance(instance) is None:  # all of it: one commit has both
            recorded = _record(broker, instance, by, tally.count)
        await broker.commits.wait_durable()
    while tally.open:
        await broker.commits.wait_durable()
    _record(broker, instance, by, tally.count - recorded)
    await broker.commits.wait_durable()
    return tally.count


def _record(broker: Broker, instance: bytes, by: str, cancelled: int) -> int:
    """Record the action with the next commit, if it has cancelled nodes; return how many."""
    if cancelled:
        broker.scheduler.record_action(ActionRow(ActionKind.CANCEL, by, instance, nodes=cancelled))
    return cancelled


async def _all(broker: Broker, instance: bytes) -> Iterator[Node]:
    if broker.scheduler.instance(instance) is None:
        await broker.lookups.stored_instance(instance)
    return broker.scheduler.unfinished_of(instance)


async def _live(broker: Broker, instance: bytes, ids: Sequence[bytes]) -> Iterable[Node]:
    """Return the unfinished ones of these nodes."""
    find = broker.scheduler.node
    ended = [id for id in ids if find(id) is None]
    if ended:
        await broker.lookups.find_nodes(instance, ended)
    nodes = {id: node for id in ids if (node := find(id)) is not None}
    for id, node in nodes.items():
        check_instance(id, instance, is_own=node.instance.id == instance)
    return nodes.values()
