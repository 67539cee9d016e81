"""What a call names and memory lacks is read from the store before the heart is asked: load, then decide."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from dagorama_broker.errors import Malformed
from dagorama_broker.model.queries import StoredInstance
from dagorama_broker.scheduler import NewRun, Node
from dagorama_broker.scheduler.graph import Graph

if TYPE_CHECKING:
    from dagorama_broker.engine.broker import Broker

#: Counters that a call makes, by origin: where ranges begin, in order, and the largest end up to each of them.
Made: TypeAlias = dict[bytes, tuple[list[int], list[int]]]


@dataclass(slots=True, eq=False)
class Reach:
    """What was found. A node found while it lived stays good when it has ended meanwhile, unless it was removed."""

    nodes: dict[bytes, Node] = field(default_factory=dict)
    instances: dict[bytes, StoredInstance] = field(default_factory=dict)  #: that memory lacked
    unknown: set[bytes] = field(default_factory=set)  #: ids that nobody ever used
    gone: set[int] = field(default_factory=set)  #: keys of instances that were removed while this went on

    def without_gone(self) -> Reach:
        """The same, when all that is known of what was removed meanwhile is taken back."""
        if self.gone:
            for id in [id for id, node in self.nodes.items() if node.instance.key in self.gone]:
                del self.nodes[id]
                self.unknown.add(id)
            for id in [id for id, stored in self.instances.items() if stored.row.key in self.gone]:
                del self.instances[id]
                self.unknown.add(id)
        return self


async def reach(broker: Broker, runs: Sequence[NewRun], ids: Iterable[bytes] = ()) -> Reach:
    """Find all that these runs and ids name.

    Nothing has changed between the last look and the return: whoever goes on without awaiting can rely on it that
    what is named is in memory, in the answer, or unknown.
    """
    found, named = Reach(), named_by(runs) | set(ids)
    revivals = broker.scheduler.revivals
    broker.loads.add(found)
    try:
        while True:
            if revivals != broker.scheduler.revivals:  # what had failed when it was read may run again, or be over anew
                found.nodes.clear()
                found.instances.clear()
                revivals = broker.scheduler.revivals
            nodes = missing_nodes(broker, named, found)
            instances = _missing_instances(broker, runs, found)
            if not nodes and not instances and not is_unsettled(broker, runs):
                return found.without_gone()
            await broker.durable()
            await read(broker, nodes, instances, found)
    finally:
        broker.loads.discard(found)


def within_reach(broker: Broker, runs: Sequence[NewRun]) -> Reach | None:
    """The same where all that the runs name is in memory; None where it is not."""
    found, named = Reach(), named_by(runs)
    if missing_nodes(broker, named, found) or _missing_instances(broker, runs, found) or is_unsettled(broker, runs):
        return None
    return found


def refuse_other_world(runs: Iterable[NewRun], found: Reach) -> None:
    """Raise where a node would be given a value that the other protocol's clients have packed."""
    for run in runs:
        for id in run.foreign:
            node = found.nodes.get(id)
            if node is not None and run.lanes and node.lane.function.world is not run.lanes[0].function.world:
                raise Malformed(f"source {id.hex()} was made by the other protocol's calls")


def named_by(runs: Sequence[NewRun]) -> set[bytes]:
    """Return the ids of sources that the runs do not make themselves."""
    named, made = set[bytes](), made_by(runs)
    for run in runs:
        named |= named_by_one(run, made)
    return named


def named_by_one(run: NewRun, made: Made) -> set[bytes]:
    """Return the ids of a run's sources that the call does not make itself."""
    named = {id for id in run.foreign if not _is_made(made, id[:12], int.from_bytes(id[12:], "big"))}
    if run.sources is not None and run.first:
        earlier = {ref for refs in run.sources for ref in refs if 0 <= ref < run.first}
        named |= {run.origin + ref.to_bytes(4, "big") for ref in earlier if not _is_made(made, run.origin, ref)}
    return named


def made_by(runs: Iterable[NewRun]) -> Made:
    """Return the counters that a call makes, by origin."""
    ranges: dict[bytes, list[tuple[int, int]]] = {}
    for run in runs:
        if run.lanes:
            ranges.setdefault(run.origin, []).append((run.first, run.first + len(run.lanes)))
    made: Made = {}
    for origin, of_origin in ranges.items():
        of_origin.sort()
        # Ranges that overlap are refused later; here the one with the larger end stands for both.
        made[origin] = [first for first, _ in of_origin], list(accumulate([end for _, end in of_origin], max))
    return made


def _is_made(made: Made, origin: bytes, counter: int) -> bool:
    if origin not in made:
        return False
    firsts, ends = made[origin]
    place = bisect_right(firsts, counter) - 1
    return place >= 0 and counter < ends[place]


def missing_nodes(broker: Broker, named: Iterable[bytes], found: Reach) -> list[bytes]:
    missing = []
    for id in named:
        if id in found.nodes or id in found.unknown:
            continue
        node = broker.scheduler.graph.find(id)
        if node is None:
            missing.append(id)
        else:
            found.nodes[id] = node
    return missing


def _missing_instances(broker: Broker, runs: Iterable[NewRun], found: Reach) -> set[bytes]:
    """Instances that nodes are added to, and those that are made empty and may be there already."""
    live = broker.scheduler.graph.instances
    wanted, made = set(), set()
    for run in runs:
        if run.creates is None:
            if run.instance not in live and run.instance not in made:
                wanted.add(run.instance)
        else:
            made.add(run.instance)
            if not run.lanes and broker.has_instance(run.instance):
                wanted.add(run.instance)
    return wanted - found.instances.keys() - found.unknown


def is_unsettled(broker: Broker, runs: Iterable[NewRun]) -> bool:
    """Whether the store is about to learn of something that the runs may repeat, and memory knows no more."""
    graph, unwritten = broker.scheduler.graph, broker.unwritten
    if graph.reserved and any(_is_reserved(graph, run) for run in runs):
        return True
    return any(
        (run.origin in unwritten and run.origin not in graph.origins)
        or (run.creates is not None and run.instance in unwritten and run.instance not in graph.instances)
        for run in runs
    )


def _is_reserved(graph: Graph, run: NewRun) -> bool:
    """Whether a call that is not decided makes something that the run names."""
    names = run.origin, run.instance, *[id[:12] for id in run.foreign]
    return any(name in graph.reserved for name in names)


async def read(broker: Broker, nodes: Sequence[bytes], instances: Iterable[bytes], found: Reach) -> None:
    ended = await broker.find_ended(nodes)
    found.nodes.update(ended)
    found.unknown.update(id for id in nodes if id not in ended)
    for id in instances:
        stored = await broker.in_store(broker.store.instance, id)
        if stored is None:
            found.unknown.add(id)
        else:
            found.instances[id] = stored
