"""Calls that make many nodes, in slices: other calls have their turn in between, and still all is made or nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from dagorama_broker.errors import NotServing
from dagorama_broker.reaching import Reach, made_by, missing_nodes, named_by_one, read, refuse_other_world
from dagorama_broker.repeating import is_made
from dagorama_broker.scheduler import Draft, NewRun, Node, Worker
from dagorama_broker.scheduler.parts import Instance

if TYPE_CHECKING:
    from dagorama_broker.broker import Broker

#: Ids that are looked up in the store in one go.
LOOKED_UP = 1_000


class Turns:
    """Pauses after each `step` units of work: nodes, references or runs."""

    def __init__(self, step: int, pause: Callable[[], Awaitable[None]]) -> None:
        self._step = self._left = step
        self._pause = pause

    async def spend(self, units: int) -> None:
        self._left -= units
        if self._left <= 0:
            self._left = self._step
            await self._pause()


def is_many(broker: Broker, weight: int) -> bool:
    """Whether what weighs so much is made in slices."""
    return weight > broker.scheduler.limits.step


async def submit_many(broker: Broker, runs: Sequence[NewRun]) -> None:
    """Make nodes and instances, once, and return when they are durable.

    Raises a BrokerRefusal, and then nothing has changed.
    """
    async with broker.drafting:
        added_to = {run.instance for run in runs} - {run.instance for run in runs if run.creates is not None}
        with ExitStack() as holds:
            for id in added_to:
                holds.enter_context(broker.holds.on(id))
            while not await _submitted(broker, runs, added_to):
                pass  # a retry has changed what was read from the store
    await broker.durable()


async def _submitted(broker: Broker, runs: Sequence[NewRun], added_to: Collection[bytes]) -> bool:
    """Return whether all is made; if not, it is to be found out again."""
    scheduler = broker.scheduler
    revivals = scheduler.revivals
    with _taken_up(broker, [await _instance(broker, id) for id in added_to]):
        left, found = await _left_to_make(broker, runs)
        async with drafted(broker, left, found.nodes) as draft:
            if scheduler.revivals != revivals:
                return False
            for run in left:
                broker.refuse_unkept(run.large)
            broker.see_time()
            draft.carry_out(0)
    return True


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
    turns, made = Turns(broker.scheduler.limits.step, broker.next_turn), made_by(runs)
    for run in runs:
        await turns.spend(run.weight)
        missing += missing_nodes(broker, named_by_one(run, made), found)
        empty = {run.instance} if not run.lanes and broker.has_instance(run.instance) else ()
        if len(missing) >= LOOKED_UP or empty:
            await _look_up(broker, missing, empty, found)
            missing = []
        if not is_made(broker, run, found):
            left.append(run)
    await _look_up(broker, missing, (), found)
    for run in left:
        await turns.spend(len(run.foreign) + 1)
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
    draft = scheduler.draft(runs, known)

    async def next_turn() -> None:
        await broker.next_turn()
        if worker is not None:
            scheduler.heard(worker, broker.see_time())

    async def next_commit() -> None:
        await broker.durable()
        if worker is not None:
            scheduler.heard(worker, broker.see_time())

    try:
        turns = Turns(scheduler.limits.step, next_turn)
        for units in draft.find_out():
            await turns.spend(units)
        turns = Turns(scheduler.limits.step, next_commit)
        for units in draft.enter():
            await turns.spend(units)
        yield draft
    finally:
        if not draft.is_carried_out:
            broker.go_on_with(_give_up(broker, draft))


async def _give_up(broker: Broker, draft: Draft) -> None:
    turns = Turns(broker.scheduler.limits.step, broker.durable)
    with suppress(NotServing):  # the next broker deletes what is left when it starts
        for units in draft.give_up():
            await turns.spend(units)
