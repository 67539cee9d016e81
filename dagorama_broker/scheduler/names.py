"""Finds nodes, instances and the queues of functions by their names. The lowest layer of `Graph`."""

from __future__ import annotations

import weakref
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from dagorama_broker.errors import Conflict
from dagorama_broker.model.domain import Function
from dagorama_broker.model.rows import AdoptionRow, Changes, FunctionRow
from dagorama_broker.scheduler.effects import Effects
from dagorama_broker.scheduler.limits import STEP
from dagorama_broker.scheduler.objects import Instance, Node, Reservation, Run
from dagorama_broker.scheduler.queues import Lane

FIRST = attrgetter("first")
#: Bytes that a function and its queue take in addition to its texts, roughly.
FUNCTION_BYTES = 1_500


def run_with(runs: Sequence[Run], counter: int) -> Run | None:
    """Return the run that has this counter; `runs` are of one origin, in the order of counters."""
    place = bisect_right(runs, counter, key=FIRST) - 1
    return runs[place] if place >= 0 and counter < runs[place].first + runs[place].count else None


def node_id(origin: bytes, counter: int) -> bytes:
    """Return the 16-byte id of a node."""
    return origin + counter.to_bytes(4, "big")


def refuse_overlaps(runs: Sequence[Run], others: Sequence[Run]) -> None:
    """Raise Conflict if runs of one origin overlap with each other, or with `others`, which exist already, or if they
    are of different instances. Both are in the order of their counters."""
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
    return Conflict(f"node {node_id(origin, counter).hex()} exists already, with other content")


def _size_of(function: Function) -> int:
    """Return the bytes that a function takes in memory, roughly."""
    texts = (function.name, function.hash, function.queue, function.taint, function.class_code)
    return FUNCTION_BYTES + 2 * sum(map(len, texts))


class Names:
    """Holds the unfinished nodes, their instances and the queues of their functions, by name."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}  #: unfinished ones
        self.instances: dict[bytes, Instance] = {}  #: with an unfinished node
        self.origins: dict[bytes, list[Run]] = {}  #: of those instances
        self.reserved: dict[bytes, Reservation] = {}  #: ids of instances, and origins of nodes, that drafts are making
        self.drafted: dict[bytes, Instance] = {}  #: that drafts add to: they stay the same while a draft goes on
        self.lanes: dict[Function, Lane] = {}
        self.lane_by_id: dict[int, Lane] = {}  #: the same, by the id that rows name them by
        self.keyed: dict[tuple[int, str], Lane] = {}  #: queues of concurrency keys that an unfinished node has
        self.next_node = 1
        self.next_instance = 1
        self.next_lane = 1
        self.functions_size = 0  #: bytes that the functions take
        self.made_with: dict[int, str] = {}  #: original code of unfinished nodes that are bound to other code, by key
        self.adoptions: dict[int, AdoptionRow] = {}  #: what allows that, by the same keys
        self.next_adoption = 1
        self._last_keyed = 0
        self.wall = 0.0  #: to add to the scheduler's clock for seconds since 1970
        self.now = 0.0
        self.changes = Changes()
        self.unwritten: set[bytes] = set()  #: ids of instances and origins that `changes` makes
        self.effects = Effects()

    # --- functions ------------------------------------------------------------------------------------

    def make_lane(self, function: Function) -> Lane:
        """Return the queue of a function; make it if there is none."""
        lane = self.lanes.get(function)
        if lane is None:
            lane = self.record_lane(Lane(self.next_lane, function))
            self.next_lane += 1
        return lane

    def record_lane(self, planned: Lane) -> Lane:
        """Enter a new queue, with its row, unless its function has one by now. Return the queue of the function."""
        lane = self.lanes.get(planned.function)
        if lane is None:
            lane = self.enter_lane(planned)
            self.changes.functions.append(FunctionRow(lane.id, lane.function))
        return lane

    def enter_lane(self, lane: Lane) -> Lane:
        """Enter the queue of a function that has a row."""
        self.lanes[lane.function] = self.lane_by_id[lane.id] = lane
        self.functions_size += _size_of(lane.function)
        return lane

    def drop_lane(self, id: int) -> bool:
        """Drop the queue of a function that no stored node names, unless something in memory uses it."""
        lane = self.lane_by_id.pop(id)
        function = lane.function
        del self.lanes[function]
        self.functions_size -= _size_of(function)
        # Nodes, also planned ones, reference their queues: if nothing else does, it is freed with this name. If it
        # would only be freed later, it stays until the next attempt to drop it.
        left = weakref.ref(lane)
        del lane
        used = left()
        if used is not None:
            self.enter_lane(used)
            return False
        self.changes.functions_gone.append(id)
        return True

    def lane_of(self, lane: Lane, key: str) -> Lane:
        """Return the queue of a concurrency key of a function, for a node that may yet be refused."""
        keyed = self.keyed.get((lane.id, key))
        if keyed is None:
            self._last_keyed -= 1
            keyed = Lane(lane.id, lane.function, key, self._last_keyed, lane)
        return keyed

    def enter_keyed(self, node: Node) -> None:
        """Count a node with a concurrency key: the queue of the key lasts as long as it has such a node."""
        lane = node.lane = self.keyed.setdefault((node.lane.id, node.lane.key), node.lane)
        lane.nodes += 1

    def _leave_keyed(self, lane: Lane) -> None:
        lane.nodes -= 1
        if not lane.nodes:
            del self.keyed[lane.id, lane.key]

    # --- nodes and instances --------------------------------------------------------------------------

    def find(self, id: bytes) -> Node | None:
        """Return an unfinished node by its 16-byte id."""
        counter = int.from_bytes(id[12:], "big")
        run = run_with(self.origins.get(id[:12], ()), counter)
        return self.nodes.get(run.key_of(counter)) if run is not None else None

    def unfinished_of(self, instance: bytes) -> Iterator[Node]:
        """Yield the unfinished nodes of an instance, including nodes that are made meanwhile."""
        known = self.instances.get(instance)
        for run in known.runs if known is not None else ():
            for start in range(run.first_key, run.first_key + run.count, STEP):
                keys = range(start, min(start + STEP, run.first_key + run.count))
                yield from [self.nodes[key] for key in keys if key in self.nodes]

    def recall(self, key: int, id: bytes, failed: bool) -> None:
        """Load an instance that has left memory, because a call names it."""
        if id not in self.instances:
            self.instances[id] = self.drafted.get(id) or Instance(key, id, failed)

    def enter_run(self, run: Run) -> None:
        """Make the nodes of a run findable by their ids."""
        run.instance.runs.append(run)
        of_origin = self.origins.setdefault(run.origin, [])
        if of_origin and of_origin[-1].first > run.first:
            insort(of_origin, run, key=FIRST)
        else:
            of_origin.append(run)

    def forget_idle(self, ids: Iterable[bytes]) -> None:
        """Evict instances without unfinished nodes."""
        for id in ids:
            instance = self.instances.get(id)
            if instance is not None and not instance.live:
                self._forget_instance(instance)

    def _forget_instance(self, instance: Instance) -> None:
        """Evict an instance from memory; the store has it."""
        self.instances.pop(instance.id, None)
        for run in instance.runs:
            self.origins.pop(run.origin, None)
        instance.runs = []
