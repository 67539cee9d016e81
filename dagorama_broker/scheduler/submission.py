"""Makes nodes: what a call asks for is found out in full, and refused or carried out as a whole."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagorama_broker.errors import Conflict, Malformed, NotKnown
from dagorama_broker.model.rows import InstanceEnd, InstanceRow, KeyRow, LargeRow, NodeRow, RunRow
from dagorama_broker.scheduler.graph import FIRST, Graph, pack_sources, run_with
from dagorama_broker.scheduler.objects import Instance, Node, Run
from dagorama_broker.scheduler.queues import Lane
from dagorama_broker.scheduler.transitions import WAITING

if TYPE_CHECKING:
    from dagorama_broker.scheduler.drafts import Draft


#: Nodes that are gone through in one go.
PORTION = 2_000


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
    weight: int = 0  #: nodes and references, roughly what making them costs


class Plan:
    """Nodes and instances that a call asks for, while nothing has changed yet."""

    def __init__(
        self, graph: Graph, runs: Sequence[NewRun], known: Mapping[bytes, Node], draft: Draft | None = None
    ) -> None:
        """`known` has ended nodes, read back from the store, by the ids that the runs name.

        Without a draft all is found out at once; that raises Malformed, NotKnown or Conflict. With one, `steps` does.
        """
        self.nodes: list[Node] = []
        self.new_runs = runs
        self.runs: list[Run] = []  #: those that are to be made, or have been, one for each of `new_runs`
        self._graph = graph
        self._known = known
        self._draft = draft
        self._first_key = draft.first_key if draft is not None else graph.next_node
        self._first_instance = draft.first_instance if draft is not None else graph.next_instance
        self._instances: dict[bytes, tuple[Instance, NewRun]] = {}
        self._origins: dict[bytes, list[Run]] = {}
        self._last: Run | None = None  # the run that was looked into last
        if draft is None:
            for _ in self.steps():
                pass

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
        place = key - self._first_key
        return self.nodes[place] if 0 <= place < len(self.nodes) else self._graph.nodes.get(key)

    def named(self, origin: bytes, counter: int) -> Node | None:
        """A known node, which has ended, by origin and counter."""
        return self._known.get(_id(origin, counter))

    def has(self, node: Node) -> bool:
        """Whether it is one of the nodes that are to be made."""
        return 0 <= node.key - self._first_key < len(self.nodes)

    # --- finding out ----------------------------------------------------------------------------------

    def steps(self) -> Iterator[int]:
        """Find out in full what is asked for, run by run. Yield how many nodes and sources each step looked at.

        Raises Malformed, NotKnown or Conflict.
        """
        for new in self.new_runs:
            yield from self._take_in(new)
        for origin, runs in self._origins.items():
            runs.sort(key=FIRST)
            _refuse_overlaps(runs, self._graph.origins.get(origin, ()))
            yield len(runs)
        for new, run in zip(self.new_runs, self.runs, strict=True):
            if new.sources is not None:
                first = run.first_key - self._first_key
                nodes = self.nodes[first : first + run.count]
                for start in range(0, run.count, PORTION):
                    yield self._connect(new, nodes, start)

    def _take_in(self, new: NewRun) -> Iterator[int]:
        if len(new.arguments) != len(new.lanes) or (new.sources is not None and len(new.sources) != len(new.lanes)):
            raise Malformed("the columns of a run of nodes have different lengths")
        instance, first_key = self._instance_of(new), self._first_key + len(self.nodes)
        run = Run(new.origin, new.first, len(new.lanes), first_key, instance, new.digest)
        if new.lanes:
            self._refuse_reserved(new.origin)
            self._origins.setdefault(run.origin, []).append(run)
        self.runs.append(run)
        if run.count <= PORTION:
            self.nodes += [Node(key, instance, lane, run) for key, lane in enumerate(new.lanes, first_key)]
            yield run.count + 1
            return
        for start in range(0, run.count, PORTION):
            lanes = new.lanes[start : start + PORTION]
            self.nodes += [Node(key, instance, lane, run) for key, lane in enumerate(lanes, first_key + start)]
            yield len(lanes)

    def _instance_of(self, new: NewRun) -> Instance:
        id, creates, graph = new.instance, new.creates, self._graph
        instance = graph.instances.get(id) or (graph.drafted.get(id) if self._draft is not None else None)
        planned, maker = self._instances.get(id, (None, None))
        if creates is not None and (instance or (maker is not None and maker.creates != creates)):
            raise Conflict(f"instance {id.hex()} exists already, with other content")
        if creates is not None and planned is None:
            self._refuse_reserved(id)
            planned = Instance(self._first_instance + len(self._instances), id)
            self._instances[id] = planned, new
        instance = instance or planned
        if instance is None:
            raise NotKnown(f"instance {id.hex()} is not known to this broker")
        return instance

    def _refuse_reserved(self, name: bytes) -> None:
        """Raise Conflict if a draft is making nodes of this origin, or this instance; for a draft, reserve the name."""
        reserved = self._graph.reserved
        if not reserved and self._draft is None:
            return
        if reserved.get(name, self._draft) is not self._draft:
            raise Conflict(f"another call makes {name.hex()} at this moment")
        if self._draft is not None:
            reserved[name] = self._draft

    def _connect(self, new: NewRun, nodes: list[Node], start: int) -> int:
        """Give nodes of a run, from that place on, their sources; return how many nodes and sources these are."""
        assert new.sources is not None
        end = min(start + PORTION, len(nodes))
        count = end - start
        for place in range(start, end):
            references = new.sources[place]
            if references:
                count += len(references)
                sources = nodes[place].sources = self._sources(new, nodes, place, references)
                if new.tolerant is not None and new.tolerant[place]:
                    nodes[place].tolerates = frozenset(sources[at].key for at in new.tolerant[place])
        return count

    def _sources(self, new: NewRun, nodes: list[Node], place: int, references: Sequence[int]) -> tuple[Node, ...]:
        """Nodes before this one in its run, or others by their names."""
        first, sources = new.first, []
        for reference in references:
            if reference < first:
                sources.append(self._other(new, reference, nodes[place]))
            elif reference - first < place:
                sources.append(nodes[reference - first])
            else:
                raise Malformed("a node names itself, or a node that is made after it, as a source")
        if len(sources) > 1 and len(set(sources)) != len(sources):
            raise Malformed("a node names the same source twice")
        return tuple(sources)

    def _other(self, new: NewRun, reference: int, node: Node) -> Node:
        if reference >= 0:
            source = self.at(new.origin, reference) or self.named(new.origin, reference)
        else:
            source = self.find(new.foreign[-1 - reference])
        if source is None or (source.key >= node.key and self.has(source)):
            id = _id(new.origin, reference) if reference >= 0 else new.foreign[-1 - reference]
            raise NotKnown(f"source {id.hex()} is not known to this broker")
        if source.instance.key != node.instance.key:
            raise Malformed("a source is of another instance than the node that names it")
        return source

    # --- carrying out ---------------------------------------------------------------------------------

    def make(self, maker: int = 0) -> None:
        """Carry it out at once; `maker` is the key of the node whose attempt asked for it."""
        graph = self._graph
        graph.next_node += len(self.nodes)
        graph.next_instance += len(self._instances)
        for new, run in zip(self.new_runs, self.runs, strict=True):
            self.enter_nodes(run, new.arguments)
        self.publish(maker)
        for node in self.nodes:
            graph.start(node)
        graph.forget_idle(new.instance for new in self.new_runs)

    def enter_nodes(self, run: Run, arguments: Sequence[bytes], start: int = 0, end: int | None = None) -> list[Node]:
        """Enter nodes of a run, by their places in it, and their rows: they cannot be found by their names yet."""
        graph, changes, first = self._graph, self._graph.changes, run.first_key - self._first_key
        end = run.count if end is None else min(end, run.count)
        nodes, instance_key = self.nodes[first + start : first + end], run.instance.key
        graph.counts[WAITING] += len(nodes)
        graph.nodes.update([(node.key, node) for node in nodes])
        changes.nodes += [
            NodeRow(node.key, instance_key, node.lane.id, pack_sources(node), bytes)
            for node, bytes in zip(nodes, arguments[start:end] if start or end < run.count else arguments, strict=True)
        ]
        for node in nodes:
            if node.lane.key:
                graph.enter_keyed(node)
                changes.keys.append(KeyRow(node.key, node.lane.key))
        return nodes

    def publish(self, maker: int) -> None:
        """Make the instances and the runs, whose nodes were entered.

        All are made before any node is started: one that fails at once may be the last of its instance that lives.
        """
        graph = self._graph
        for instance, new in self._instances.values():
            assert new.creates is not None
            graph.instances[instance.id] = instance
            row = InstanceRow(instance.key, instance.id, *new.creates, graph.now + graph.wall)
            graph.changes.instances.append(row)
        for new, run in zip(self.new_runs, self.runs, strict=True):
            if run.count:
                self._publish_run(new, run, maker)
        for instance, _ in self._instances.values():
            if not instance.live:  # without a node that could end it would never have ended
                graph.changes.instance_ends.append(InstanceEnd(instance.key, graph.now + graph.wall, False))

    def _publish_run(self, new: NewRun, run: Run, maker: int) -> None:
        graph, instance, changes = self._graph, run.instance, self._graph.changes
        if not instance.live and instance.id not in self._instances:
            graph.instances[instance.id] = instance
            changes.instance_ends.append(InstanceEnd(instance.key, None, instance.failed))
        instance.live += run.count
        graph.enter_run(run)
        changes.runs.append(RunRow(run.origin, run.first, run.count, run.first_key, instance.key, run.digest, maker))
        changes.large += [LargeRow(run.first_key, sha256) for sha256 in new.large]


def _id(origin: bytes, counter: int) -> bytes:
    return origin + counter.to_bytes(4, "big")


def _refuse_overlaps(runs: Sequence[Run], others: Sequence[Run]) -> None:
    """Raise Conflict if runs of one origin, in the order of their counters, have a counter in common with each other or
    with `others`, which are there already, or if they are of different instances."""
    before: Run | None = None
    for run in runs:
        if before is not None and before.first + before.count > run.first:
            raise _taken(run.origin, run.first)
        place = bisect_right(others, run.first, key=FIRST)
        if place and others[place - 1].first + others[place - 1].count > run.first:
            raise _taken(run.origin, run.first)
        if place < len(others) and run.first + run.count > others[place].first:
            raise _taken(run.origin, others[place].first)
        if run.instance is not (others or runs)[0].instance:
            raise Conflict(f"origin {run.origin.hex()} belongs to another instance")
        before = run


def _taken(origin: bytes, counter: int) -> Conflict:
    return Conflict(f"node {_id(origin, counter).hex()} exists already, with other content")
