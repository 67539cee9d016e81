"""Calls that make many nodes, in slices: other calls have their turn in between, and still all is made or nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from dagorama_broker.engine.deduplication import is_made
from dagorama_broker.engine.loading import (
    Reach,
    is_unsettled,
    made_by,
    missing_nodes,
    named_by_one,
    read,
    refuse_other_world,
)
from dagorama_broker.engine.turns import Steps
from dagorama_broker.errors import NotServing
from dagorama_broker.scheduler import Draft, NewRun, Node, Worker
from dagorama_broker.scheduler.objects import Instance

if TYPE_CHECKING:
    from dagorama_broker.engine.broker import Broker

#: Nodes and references that are gone through between two turns of others, where no commit follows.
TURN = 2_000
#: Ids that are looked up in the store in one go, and how many nodes it costs to ask it whether a run is made already.
LOOKED_UP, LOOK = 1_000, 20


def is_many(broker: Broker, weight: int) -> bool:
    """Whether what weighs so much is made in slices."""
    return weight > broker.scheduler.limits.large


async def submit_many(broker: Broker, runs: Sequence[NewRun]) -> None:
    """Make nodes and instances, once, and return when they are durable.

    Raises a BrokerRefusal, and then nothing has changed.
    """
    async with broker.drafting:
        added_to = {run.instance for run in runs} - {run.instance for run in runs if run.creates is not None}
        with ExitStack() as holds:
            for id in added_to:
                holds.enter_context(broker.holds.on(id))
            draft = None
            while draft is None:  # else a retry has changed what was read from the store
                draft = await _carried_out(broker, runs, added_to)
    await broker.durable()
    while not draft.is_started:
        await broker.durable()
    steps = Steps(TURN, broker.next_turn)
    for run in runs:  # else all of it would be freed in one go when the call returns
        await steps.spend(run.weight)
        run.arguments, run.sources = [], None


async def _carried_out(broker: Broker, runs: Sequence[NewRun], added_to: Collection[bytes]) -> Draft | None:
    """Return a draft of all that is left to make, carried out; None: what it needs is to be found out again."""
    scheduler = broker.scheduler
    revivals = scheduler.revivals
    with _taken_up(broker, [await _instance(broker, id) for id in added_to]):
        left, found = await _left_to_make(broker, runs)
        async with drafted(broker, left, found.nodes) as draft:
            if scheduler.revivals != revivals:
                return None
            for run in left:
                broker.refuse_unkept(run.large)
            broker.see_time()
            draft.carry_out(0)
            return draft


async def _instance(broker: Broker, id: bytes) -> Instance:
    """Return an instance that nodes are added to. Raises NotKnown."""
    live = broker.scheduler.graph.instances
    if id not in live:
        await broker.durable()
        stored = await broker.in_store(broker.store.instance, id)
        if id not in live:
            if stored is None:
                raise broker.not_known(id)
            return Instance(stored.row.key, id, stored.failed)
    return live[id]


@contextmanager
def _taken_up(broker: Broker, instances: Collection[Instance]) -> Iterator[None]:
    """Have these instances stay the same, whether they end meanwhile or not."""
    drafted = broker.scheduler.graph.drafted
    drafted.update((instance.id, broker.scheduler.graph.instances.get(instance.id, instance)) for instance in instances)
    try:
        yield
    finally:
        for instance in instances:
            drafted.pop(instance.id, None)


async def _left_to_make(broker: Broker, runs: Sequence[NewRun]) -> tuple[list[NewRun], Reach]:
    """Return the runs that no earlier call has made, and what they name."""
    left, found, missing = list[NewRun](), Reach(), list[bytes]()
    steps, made = Steps(broker.scheduler.limits.step, broker.next_turn), made_by(runs)
    for run in runs:
        await steps.spend(run.weight + LOOK)
        missing += missing_nodes(broker, named_by_one(run, made), found)
        empty = {run.instance} if not run.lanes and broker.has_instance(run.instance) else ()
        if len(missing) >= LOOKED_UP or empty:
            await _look_up(broker, missing, empty, found)
            missing = []
        while is_unsettled(broker, [run]):
            await broker.durable()
        if not is_made(broker, run, found):
            left.append(run)
    await _look_up(broker, missing, (), found)
    for run in left:
        await steps.spend(len(run.foreign) + 1)
        refuse_other_world([run], found)
        broker.refuse_unkept(run.large)
    return left, found


async def _look_up(broker: Broker, nodes: Sequence[bytes], instances: Collection[bytes], found: Reach) -> None:
    if nodes or instances:
        await broker.durable()
        await read(broker, nodes, instances, found)


@asynccontextmanager
async def drafted(
    broker: Broker, runs: Sequence[NewRun], known: Mapping[bytes, Node], worker: Worker | None = None
) -> AsyncIterator[Draft]:
    """Find out what the runs ask for and enter it; unless it is carried out inside, it is given up.

    `worker` is the one that makes them: it counts as heard while the broker is busy with what it said. Raises a
    BrokerRefusal.
    """
    scheduler = broker.scheduler
    draft, committing = scheduler.draft(runs, known), broker.next_commit()

    async def next_turn() -> None:
        await broker.next_turn()
        if worker is not None:
            scheduler.heard(worker, broker.see_time())

    async def next_commit() -> None:
        # What is entered now goes with the commit after the one that is under way, which takes about as long.
        nonlocal committing
        await committing
        committing = broker.next_commit()
        if worker is not None:
            scheduler.heard(worker, broker.see_time())

    try:
        steps = Steps(min(TURN, scheduler.limits.step), next_turn)
        for units in draft.find_out():
            await steps.spend(units)
        steps = Steps(scheduler.limits.step, next_commit)
        for units in draft.enter():
            await steps.spend(units)
        yield draft
    finally:
        if not draft.is_carried_out:
            broker.go_on_with(_give_up(broker, draft))


async def _give_up(broker: Broker, draft: Draft) -> None:
    steps = Steps(broker.scheduler.limits.step, broker.durable)
    with suppress(NotServing):  # the next broker deletes what is left when it starts
        for units in draft.give_up():
            await steps.spend(units)
