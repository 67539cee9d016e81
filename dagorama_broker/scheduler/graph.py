"""The graph: makes nodes, assigns states, ends nodes and tells their dependents. Knows no workers.

Nothing here scans all nodes and nothing recurses: a chain or a fan-in of 100,000 is normal work.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from struct import pack

from dagorama_broker.errors import Conflict, IllegalMove, Malformed, NotKnown
from dagorama_broker.model import (
    ENDED,
    Changes,
    Function,
    FunctionRow,
    InstanceEnd,
    InstanceRow,
    LargeRow,
    NodeRow,
    OutcomeRow,
    ProgressRow,
    ResolvedRow,
    RunRow,
    State,
)
from dagorama_broker.queues import Lane
from dagorama_broker.scheduler.parts import Effects, Instance, Node, Run, Trouble
from dagorama_broker.scheduler.table import TRANSITIONS

_FIRST = attrgetter("first")


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


def pack_keys(nodes: Sequence[Node]) -> bytes:
    """Keys as the store keeps them: little-endian 64-bit integers."""
    return pack(f"<{len(nodes)}q", *(node.key for node in nodes)) if nodes else b""


@dataclass(slots=True)
class _Plan:
    """What `add` found out before it changes anything."""

    runs: list[tuple[NewRun, Run, list[Node]]] = field(default_factory=list)
    instances: dict[bytes, Instance] = field(default_factory=dict)  #: to be made
    by_origin: dict[bytes, list[Run]] = field(default_factory=dict)
    nodes: dict[int, Node] = field(default_factory=dict)

    def find(self, id: bytes) -> Node | None:
        key = _key_of(self.by_origin.get(id[:12]), id)
        return self.nodes.get(key) if key else None


def _key_of(runs: list[Run] | None, id: bytes) -> int:
    """The key that the runs of one origin, in the order of their counters, give to an id; 0: none of them has it."""
    if not runs:
        return 0
    counter = int.from_bytes(id[12:], "big")
    place = bisect_right(runs, counter, key=_FIRST) - 1
    if place < 0 or counter >= runs[place].first + runs[place].count:
        return 0
    return runs[place].first_key + counter - runs[place].first


def _insert(runs: list[Run], run: Run) -> None:
    """Put a run at its place among those of its origin. Raises Conflict where counters are taken or the instance differs."""
    place = bisect_right(runs, run.first, key=_FIRST)
    if place and runs[place - 1].first + runs[place - 1].count > run.first:
        raise Conflict(f"node {run.id_of(run.first_key).hex()} exists already, with other content")
    if place < len(runs) and run.first + run.count > runs[place].first:
        raise Conflict(f"node {runs[place].id_of(runs[place].first_key).hex()} exists already, with other content")
    if runs and runs[0].instance is not run.instance:
        raise Conflict(f"origin {run.origin.hex()} belongs to another instance")
    runs.insert(place, run)


class Graph:
    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}  #: that have not ended
        self.instances: dict[bytes, Instance] = {}  #: with a node that has not ended
        self.origins: dict[bytes, list[Run]] = {}  #: of those instances
        self.lanes: dict[Function, Lane] = {}
        self.active: dict[int, Lane] = {}  #: lanes with a queued node
        self.counts = [0] * len(State)  #: nodes by state; those that ended, since the start
        self.next_node = 1
        self.next_instance = 1
        self.next_lane = 1
        self.wall = 0.0  #: what to add to the heart's clock for seconds since 1970
        self.now = 0.0
        self.changes = Changes()
        self.effects = Effects()

    # --- names ---------------------------------------------------------------------------------------

    def lane(self, function: Function) -> Lane:
        """The lane of a function, made where it is new."""
        lane = self.lanes.get(function)
        if lane is None:
            lane = self.lanes[function] = Lane(self.next_lane, function)
            self.next_lane += 1
            self.changes.functions.append(FunctionRow(lane.id, function))
        return lane

    def key_of(self, id: bytes) -> int:
        """The key of a node of a live instance by its 16-byte id; 0: not in memory."""
        return _key_of(self.origins.get(id[:12]), id)

    def find(self, id: bytes) -> Node | None:
        """A node that has not ended by its 16-byte id."""
        return self.nodes.get(self.key_of(id))

    def recall(self, key: int, id: bytes, failed: bool) -> None:
        """Take up an instance that has left memory, because a call names it."""
        if id not in self.instances:
            self.instances[id] = Instance(key, id, failed)

    def forget_idle(self, ids: Iterable[bytes]) -> None:
        """Let go of instances that were taken up for nothing."""
        for id in ids:
            instance = self.instances.get(id)
            if instance is not None:
                self._forget_if_over(instance)

    # --- making ---------------------------------------------------------------------------------------

    def add(self, runs: Sequence[NewRun], known: Mapping[bytes, Node]) -> list[list[Node]]:
        """Make nodes and their new instances, all or none.

        `known` has ended nodes, read back from the store, by the ids that the runs name. Raises Malformed or
        NotKnown, and then nothing has changed.
        """
        plan = _Plan()
        key = self.next_node
        for new in runs:
            run = Run(new.origin, new.first, len(new.lanes), key, self._instance_of(new, plan), new.digest)
            nodes = [Node(key + place, run.instance, lane, run) for place, lane in enumerate(new.lanes)]
            if new.sources is not None:
                self._connect(new, nodes, plan, known)
            plan.runs.append((new, run, nodes))
            runs_so_far = plan.by_origin.get(new.origin)
            if runs_so_far is None:
                runs_so_far = plan.by_origin[new.origin] = list(self.origins.get(new.origin, ()))
            _insert(runs_so_far, run)
            plan.nodes.update((node.key, node) for node in nodes)
            key += len(nodes)
        self.next_node = key
        self.origins.update(plan.by_origin)
        self._add_instances(plan, runs)
        for new, run, nodes in plan.runs:
            self._register(new, run, nodes)
        return [nodes for _, _, nodes in plan.runs]

    def _instance_of(self, new: NewRun, plan: _Plan) -> Instance:
        instance = self.instances.get(new.instance)
        if instance is not None and new.creates is not None:
            raise Conflict(f"instance {new.instance.hex()} exists already, with other content")
        instance = instance or plan.instances.get(new.instance)
        if instance is None and new.creates is not None:
            key = self.next_instance + len(plan.instances)
            instance = plan.instances[new.instance] = Instance(key, new.instance)
        if instance is None:
            raise NotKnown(f"instance {new.instance.hex()} is not known to this broker")
        return instance

    def _connect(self, new: NewRun, nodes: list[Node], plan: _Plan, known: Mapping[bytes, Node]) -> None:
        """Give each new node its sources: nodes before it in the run, or others by their ids."""
        assert new.sources is not None
        for place, references in enumerate(new.sources):
            if not references:
                continue
            node, sources = nodes[place], []
            for reference in references:
                if reference >= new.first:
                    if reference - new.first >= place:
                        raise Malformed("a node names itself, or a node that is made after it, as a source")
                    sources.append(nodes[reference - new.first])
                else:
                    sources.append(self._other(new, reference, node.instance, plan, known))
            if len(sources) > 1 and len(set(sources)) != len(sources):
                raise Malformed("a node names the same source twice")
            node.sources = tuple(sources)

    def _other(
        self, new: NewRun, reference: int, instance: Instance, plan: _Plan, known: Mapping[bytes, Node]
    ) -> Node:
        id = new.origin + reference.to_bytes(4, "big") if reference >= 0 else new.foreign[-1 - reference]
        source = plan.find(id) or self.find(id) or known.get(id)
        if source is None:
            raise NotKnown(f"source {id.hex()} is not known to this broker")
        if source.instance.key != instance.key:
            raise Malformed(f"source {id.hex()} is of another instance than the node that names it")
        return source

    def _add_instances(self, plan: _Plan, runs: Sequence[NewRun]) -> None:
        for new in runs:
            instance = plan.instances.pop(new.instance, None)
            if instance is None:
                continue
            assert new.creates is not None
            definition, entry = new.creates
            self.next_instance += 1
            self.instances[instance.id] = instance
            self.changes.instances.append(
                InstanceRow(instance.key, instance.id, definition, entry, self.now + self.wall)
            )

    def _register(self, new: NewRun, run: Run, nodes: list[Node]) -> None:
        instance, changes = run.instance, self.changes
        if not nodes:
            self.origins.pop(run.origin, None)
            self._forget_if_over(instance)
            return
        if not instance.live and instance.key < self.next_instance and new.creates is None:
            changes.instance_ends.append(InstanceEnd(instance.key, None, instance.failed))
        instance.live += len(nodes)
        instance.runs.append(run)
        changes.runs.append(RunRow(run.origin, run.first, run.count, run.first_key, instance.key, run.digest))
        changes.large += [LargeRow(run.first_key, sha256) for sha256 in new.large]
        self.counts[State.WAITING] += len(nodes)
        rows, instance_key = changes.nodes, instance.key
        for node, arguments in zip(nodes, new.arguments, strict=True):
            self.nodes[node.key] = node
            sources = node.sources
            rows.append(NodeRow(node.key, instance_key, node.lane.id, pack_keys(sources), arguments))
            if not sources or not self._await(node, sources):
                self.queue(node)

    def _await(self, node: Node, others: tuple[Node, ...]) -> bool:
        """Make the node wait for those that have not ended; False: it need not wait. A failed one fails it."""
        culprit = None
        for other in others:
            other.readers += 1
            if other.state not in ENDED:
                node.pending += 1
                if other.dependents is None:
                    other.dependents = [node]
                else:
                    other.dependents.append(node)
            elif other.state is not State.COMPLETED:
                culprit = other
        if culprit is not None:
            self.end_badly(node, State.FAILED, culprit.culprit or culprit)
            return True
        return node.pending > 0

    # --- moving ---------------------------------------------------------------------------------------

    def move(self, node: Node, state: State) -> None:
        """Assign a state: the only place that does."""
        before = node.state
        if state not in TRANSITIONS[before]:
            raise IllegalMove(f"node {node.key}: {before.name} -> {state.name}")
        self.counts[before] -= 1
        self.counts[state] += 1
        node.state = state
        lane = node.lane
        if state is State.QUEUED:
            lane.ready += 1
            if lane.ready == 1:
                self.active[lane.id] = lane
        elif before is State.QUEUED:
            lane.ready -= 1
            if not lane.ready:
                del self.active[lane.id]
        if state is State.BACKOFF:
            lane.delayed += 1
        elif before is State.BACKOFF:
            lane.delayed -= 1

    def queue(self, node: Node) -> None:
        """To the workers, at its place in the order."""
        self.move(node, State.QUEUED)
        node.slot = None
        node.lane.push(node.instance.key, node.key)

    # --- ending ---------------------------------------------------------------------------------------

    def complete(self, node: Node, value: bytes, refs: tuple[Node, ...], large: Sequence[bytes] = ()) -> None:
        """Record the value of a claimed node; where it names promises that are not kept, it goes on waiting for them."""
        node.slot = None
        for other in refs:
            if other.state in (State.FAILED, State.CANCELLED):
                self.end_badly(node, State.FAILED, other.culprit or other)
                return
        node.refs = refs
        self.changes.large += [LargeRow(node.key, sha256) for sha256 in large]
        waits = bool(refs) and self._await(node, refs)
        self.move(node, State.RESOLVING if waits else State.COMPLETED)
        self.changes.outcomes.append(
            OutcomeRow(
                node.key, int(node.state), node.attempt, pack_keys(refs), value, 0, None, self.now + self.wall
            )
        )
        if not waits:
            self._tell([node])

    def end_badly(self, node: Node, state: State, culprit: Node, failure: bytes | None = None) -> None:
        """Fail or cancel a node, and with it every descendant."""
        node.culprit = culprit
        self._record_bad_end(node, state, failure)
        self._tell([node])

    def _record_bad_end(self, node: Node, state: State, failure: bytes | None) -> None:
        resolving = node.state is State.RESOLVING
        self.move(node, state)
        node.slot = None
        node.instance.failed = True
        culprit, ended = node.culprit.key if node.culprit else 0, self.now + self.wall
        if resolving:
            self.changes.resolved.append(ResolvedRow(node.key, int(state), culprit, ended))
        else:
            self.changes.outcomes.append(
                OutcomeRow(node.key, int(state), node.attempt, b"", None, culprit, failure, ended)
            )

    def _tell(self, ended: list[Node]) -> None:
        """Tell the dependents of nodes that have ended, and theirs, in turn."""
        while ended:
            node = ended.pop()
            dependents, node.dependents = node.dependents, None
            self._forget(node)
            if not dependents:
                continue
            if node.state is State.COMPLETED:
                self._one_less(dependents, ended)
            else:
                for dependent in dependents:
                    if dependent.state not in ENDED:
                        dependent.culprit = node.culprit
                        self._record_bad_end(dependent, State.FAILED, None)
                        ended.append(dependent)

    def _one_less(self, dependents: list[Node], ended: list[Node]) -> None:
        for dependent in dependents:
            dependent.pending -= 1
            if dependent.pending or dependent.state in ENDED:
                continue
            if dependent.state is State.WAITING:
                self.queue(dependent)
            else:
                self.move(dependent, State.COMPLETED)
                self.changes.resolved.append(
                    ResolvedRow(dependent.key, int(State.COMPLETED), 0, self.now + self.wall)
                )
                ended.append(dependent)

    def _forget(self, node: Node) -> None:
        del self.nodes[node.key]
        node.trouble = None
        for other in (*node.sources, *node.refs) if node.refs else node.sources:
            other.readers -= 1
            if not other.readers:
                self.effects.unread.append(other.key)
        node.sources = ()
        self.effects.ended.append(node)
        instance = node.instance
        instance.live -= 1
        if not instance.live:
            self.changes.instance_ends.append(InstanceEnd(instance.key, self.now + self.wall, instance.failed))
            self._forget_if_over(instance)

    def _forget_if_over(self, instance: Instance) -> None:
        """What has no unfinished node leaves memory; the store has it."""
        if instance.live:
            return
        self.instances.pop(instance.id, None)
        for run in instance.runs:
            self.origins.pop(run.origin, None)
        instance.runs = []

    # --- trouble --------------------------------------------------------------------------------------

    def trouble(self, node: Node) -> Trouble:
        if node.trouble is None:
            node.trouble = Trouble()
        return node.trouble

    def record_trouble(self, node: Node) -> None:
        trouble = node.trouble
        assert trouble is not None
        retry_at = trouble.retry_at + self.wall if trouble.retry_at else 0.0
        self.changes.progress.append(
            ProgressRow(node.key, trouble.runs, trouble.deaths, trouble.lost, retry_at, trouble.failure)
        )
