"""Makes nodes: what a call asks for is found out in full, and refused or carried out as a whole."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dagorama_broker.errors import Conflict, Malformed, NotKnown
from dagorama_broker.model import InstanceEnd, InstanceRow, KeyRow, LargeRow, NodeRow, RunRow
from dagorama_broker.queues import Lane
from dagorama_broker.scheduler.graph import FIRST, Graph, pack_sources, run_with
from dagorama_broker.scheduler.parts import Instance, Node, Run
from dagorama_broker.scheduler.transitions import WAITING


@dataclass(slots=True)
class NewRun:
    """Nodes to be made, as a message described them; see `Nodes` in broker.proto for references."""

    instance: bytes
    origin: bytes
    first: int
    lanes: list[Lane]
    arguments: list[bytes]
    sources: list[Sequence[int]] | None = None  #: references of each node
    foreign: Sequence[bytes] = ()
    creates: tuple[str, bytes] | None = None  #: the instance's definition and entry, where this makes it
    digest: bytes = b""
    large: Sequence[bytes] = ()
    tolerant: Sequence[Sequence[int]] | None = None  #: for each node, places in its references


class Plan:
    """Nodes and instances that are to be made, while nothing has changed yet."""

    def __init__(self, graph: Graph, runs: Sequence[NewRun], known: Mapping[bytes, Node]) -> None:
        """`known` has ended nodes, read back from the store, by the ids that the runs name.

        Raises Malformed, NotKnown or Conflict.
        """
        self.nodes: list[Node] = []
        self._graph = graph
        self._known = known
        self._first_key = graph.next_node
        self._runs: list[tuple[NewRun, Run]] = []
        self._instances: dict[bytes, tuple[Instance, NewRun]] = {}
        self._origins: dict[bytes, list[Run]] = {}
        self._last: Run | None = None  # the run that was looked into last
        for new in runs:
            self._take_in(new)

    # --- names ----------------------------------------------------------------------------------------

    def find(self, id: bytes) -> Node | None:
        """A node by its 16-byte id: planned, unfinished or known."""
        return self.at(id[:12], int.from_bytes(id[12:], "big")) or self._known.get(id)

    def at(self, origin: bytes, counter: int) -> Node | None:
        """A planned or unfinished node by origin and counter."""
        run = self._last
        if run is None or run.origin != origin or not run.first <= counter < run.first + run.count:
            run = run_with(self._origins.get(origin, ()), counter)
            run = run or run_with(self._graph.origins.get(origin, ()), counter)
            if run is None:
                return None
            self._last = run
        key = run.key_of(counter)
        return self.nodes[key - self._first_key] if key >= self._first_key else self._graph.nodes.get(key)

    def named(self, origin: bytes, counter: int) -> Node | None:
        """A known node, which has ended, by origin and counter."""
        return self._known.get(_id(origin, counter))

    def has(self, node: Node) -> bool:
        """Whether it is one of the nodes that are to be made."""
        return node.key >= self._first_key

    # --- finding out ----------------------------------------------------------------------------------

    def _take_in(self, new: NewRun) -> None:
        if len(new.arguments) != len(new.lanes) or (new.sources is not None and len(new.sources) != len(new.lanes)):
            raise Malformed("the columns of a run of nodes have different lengths")
        instance, first_key = self._instance_of(new), self._first_key + len(self.nodes)
        run = Run(new.origin, new.first, len(new.lanes), first_key, instance, new.digest)
        nodes = [Node(key, instance, lane, run) for key, lane in enumerate(new.lanes, first_key)]
        if new.sources is not None:
            for place, references in enumerate(new.sources):
                if references:
                    sources = nodes[place].sources = self._sources(new, nodes, place, references)
                    if new.tolerant is not None and new.tolerant[place]:
                        nodes[place].tolerates = frozenset(sources[at].key for at in new.tolerant[place])
        if nodes:
            self._name(run)
        self.nodes += nodes
        self._runs.append((new, run))

    def _instance_of(self, new: NewRun) -> Instance:
        id, creates = new.instance, new.creates
        instance, (planned, maker) = self._graph.instances.get(id), self._instances.get(id, (None, None))
        if creates is not None and (instance or (maker is not None and maker.creates != creates)):
            raise Conflict(f"instance {id.hex()} exists already, with other content")
        if creates is not None and planned is None:
            planned = Instance(self._graph.next_instance + len(self._instances), id)
            self._instances[id] = planned, new
        instance = instance or planned
        if instance is None:
            raise NotKnown(f"instance {id.hex()} is not known to this broker")
        return instance

    def _name(self, run: Run) -> None:
        planned = self._origins.setdefault(run.origin, [])
        for others in (planned, self._graph.origins.get(run.origin, ())):
            _refuse_overlap(others, run)
        insort(planned, run, key=FIRST)

    def _sources(self, new: NewRun, nodes: list[Node], place: int, references: Sequence[int]) -> tuple[Node, ...]:
        """Nodes before this one in its run, or others by their names."""
        first, sources = new.first, []
        for reference in references:
            if reference < first:
                sources.append(self._other(new, reference, nodes[place].instance))
            elif reference - first < place:
                sources.append(nodes[reference - first])
            else:
                raise Malformed("a node names itself, or a node that is made after it, as a source")
        if len(sources) > 1 and len(set(sources)) != len(sources):
            raise Malformed("a node names the same source twice")
        return tuple(sources)

    def _other(self, new: NewRun, reference: int, instance: Instance) -> Node:
        if reference >= 0:
            source = self.at(new.origin, reference) or self.named(new.origin, reference)
        else:
            source = self.find(new.foreign[-1 - reference])
        if source is None:
            id = _id(new.origin, reference) if reference >= 0 else new.foreign[-1 - reference]
            raise NotKnown(f"source {id.hex()} is not known to this broker")
        if source.instance.key != instance.key:
            raise Malformed("a source is of another instance than the node that names it")
        return source

    # --- carrying out ---------------------------------------------------------------------------------

    @property
    def runs(self) -> list[Run]:
        """Those that are to be made, or have been."""
        return [run for _, run in self._runs]

    def make(self, maker: int = 0) -> None:
        """Carry it out; `maker` is the key of the node whose attempt asked for it."""
        graph = self._graph
        graph.next_node += len(self.nodes)
        graph.next_instance += len(self._instances)
        for instance, new in self._instances.values():
            assert new.creates is not None
            graph.instances[instance.id] = instance
            row = InstanceRow(instance.key, instance.id, *new.creates, graph.now + graph.wall)
            graph.changes.instances.append(row)
        # All are entered before any is started: one that fails at once may be the last of its instance that lives.
        for new, run in self._runs:
            if run.count:
                self._enter(new, run, maker)
        for instance, _ in self._instances.values():
            if not instance.live:  # without a node that could end it would never have ended
                graph.changes.instance_ends.append(InstanceEnd(instance.key, graph.now + graph.wall, False))
        for node in self.nodes:
            graph.start(node)
        graph.forget_idle(new.instance for new, _ in self._runs)

    def _enter(self, new: NewRun, run: Run, maker: int) -> None:
        graph, instance, changes = self._graph, run.instance, self._graph.changes
        if not instance.live and instance.id not in self._instances:
            changes.instance_ends.append(InstanceEnd(instance.key, None, instance.failed))
        instance.live += run.count
        graph.enter_run(run)
        graph.counts[WAITING] += run.count
        changes.runs.append(RunRow(run.origin, run.first, run.count, run.first_key, instance.key, run.digest, maker))
        changes.large += [LargeRow(run.first_key, sha256) for sha256 in new.large]
        start = run.first_key - self._first_key
        nodes, instance_key = self.nodes[start : start + run.count], instance.key
        graph.nodes.update((node.key, node) for node in nodes)
        changes.nodes += [
            NodeRow(node.key, instance_key, node.lane.id, pack_sources(node), arguments)
            for node, arguments in zip(nodes, new.arguments, strict=True)
        ]
        for node in nodes:
            if node.lane.key:
                graph.enter_keyed(node)
                changes.keys.append(KeyRow(node.key, node.lane.key))


def _id(origin: bytes, counter: int) -> bytes:
    return origin + counter.to_bytes(4, "big")


def _refuse_overlap(runs: Sequence[Run], run: Run) -> None:
    """Raise where counters are taken, or where the origin is another instance's."""
    place = bisect_right(runs, run.first, key=FIRST)
    before = runs[place - 1] if place else None
    after = runs[place] if place < len(runs) else None
    if before is not None and before.first + before.count > run.first:
        raise Conflict(f"node {_id(run.origin, run.first).hex()} exists already, with other content")
    if after is not None and run.first + run.count > after.first:
        raise Conflict(f"node {_id(run.origin, after.first).hex()} exists already, with other content")
    if runs and runs[0].instance.key != run.instance.key:
        raise Conflict(f"origin {run.origin.hex()} belongs to another instance")
