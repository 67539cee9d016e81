"""Finds nodes, instances and the queues of functions by their names. The lowest layer of `Graph`."""

from __future__ import annotations

import weakref
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from dagorama_broker.errors import Conflict
from dagorama_broker.model.domain import Function
from dagorama_broker.model.queries import StoredInstance
from dagorama_broker.model.rows import (
    Changes,
    FunctionRow,
    PausedQueueRow,
    RebindingRow,
    TraceRow,
    WorkerNameRow,
)
from dagorama_broker.model.schedules import ScheduleRow
from dagorama_broker.scheduler.effects import Effects
from dagorama_broker.scheduler.instances import Instance, NodeBlock
from dagorama_broker.scheduler.key_pauses import KeyPauses
from dagorama_broker.scheduler.limits import STEP
from dagorama_broker.scheduler.mailboxes import Mailboxes
from dagorama_broker.scheduler.objects import Node, Reservation
from dagorama_broker.scheduler.queues import FunctionQueue
from dagorama_broker.scheduler.rates import Rates
from dagorama_broker.scheduler.recording import NONE_SAMPLED, SAMPLED, Recording
from dagorama_broker.scheduler.turns import Turns

FIRST = attrgetter("first")
#: Bytes that a function and its queue take in addition to its texts, roughly.
FUNCTION_BYTES = 1_500
#: Names of workers whose numbers are remembered at the same time.
MOST_WORKER_NAMES = 10_000


def block_with(blocks: Sequence[NodeBlock], counter: int) -> NodeBlock | None:
    """Return the block that has this counter; `blocks` are of one origin, in the order of counters."""
    place = bisect_right(blocks, counter, key=FIRST) - 1
    return blocks[place] if place >= 0 and counter < blocks[place].first + blocks[place].count else None


def node_id(origin: bytes, counter: int) -> bytes:
    """Return the 16-byte ID of a node."""
    return origin + counter.to_bytes(4, "big")


def refuse_overlaps(blocks: Sequence[NodeBlock], others: Sequence[NodeBlock]) -> None:
    """Raise Conflict if blocks of one origin overlap with each other, or with `others`, which exist already, or if they
    are of different instances. Both are in the order of their counters."""
    before: NodeBlock | None = None
    for block in blocks:
        if before is not None and before.first + before.count > block.first:
            raise _taken(block.origin, block.first)
        place = bisect_right(others, block.first, key=FIRST)
        if place and others[place - 1].first + others[place - 1].count > block.first:
            raise _taken(block.origin, block.first)
        if place < len(others) and block.first + block.count > others[place].first:
            raise _taken(block.origin, others[place].first)
        if block.instance is not (others or blocks)[0].instance:
            raise Conflict(f"origin {block.origin.hex()} belongs to another instance")
        before = block


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
        self.origins: dict[bytes, list[NodeBlock]] = {}  #: of those instances
        self.reserved: dict[bytes, Reservation] = {}  #: IDs of instances, and origins of nodes, that drafts are making
        self.drafted: dict[bytes, Instance] = {}  #: that drafts add to: they stay the same while a draft goes on
        self.queues: dict[Function, FunctionQueue] = {}
        self.queue_by_id: dict[int, FunctionQueue] = {}  #: the same, by the ID that rows name them by
        self.paused: dict[str, PausedQueueRow] = {}  #: queues whose nodes are not granted, by name
        self.schedules: dict[str, ScheduleRow] = {}  #: by name; the engine decides what they start
        self.keyed: dict[tuple[int, str], FunctionQueue] = {}  #: queues of concurrency keys that an unfinished node has
        self.next_node = 1
        self.last_stored = 0  #: the largest key of a node that an earlier broker stored; 0: none
        self.next_instance = 1
        self.next_queue = 1
        self.functions_size = 0  #: bytes that the functions take
        self.made_with: dict[int, str] = {}  #: original code of unfinished nodes that are bound to other code, by key
        self.rebindings: dict[int, RebindingRow] = {}  #: what allows that, by the same keys
        self.next_rebinding = 1
        self.next_worker = 1
        self.worker_numbers: dict[str, int] = {}  #: by name, of workers that have connected to this broker
        self.traces: dict[int, str] = {}  #: trace contexts of traced blocks in `origins`, by their first keys
        self.mail = Mailboxes()  #: signals of `instances`
        self._last_keyed = 0
        self.stirred: dict[FunctionQueue, None] = {}  #: queues whose oldest claimable node may have changed
        self.rates = Rates(self.stir)
        self.key_pauses = KeyPauses(self.queue_by_id, self.keyed)
        self.turns = Turns()
        self.wall = 0.0  #: to add to the scheduler's clock for seconds since 1970
        self.now = 0.0
        self.changes = Changes()
        self.unwritten: set[bytes] = set()  #: IDs of instances, their name keys, and origins that `changes` makes
        self.effects = Effects()
        self.recording = Recording()
        self.sampled = NONE_SAMPLED  #: bits that the keys of sampled nodes do not have

    def record(self) -> Recording:
        """Count all nodes from now on, and return the counts. Call it before anything else is known."""
        self.recording.is_complete = True
        self.sampled = SAMPLED
        return self.recording

    def stir(self, queue: FunctionQueue) -> None:
        """Note that the oldest claimable node of a queue may have changed."""
        self.stirred[queue] = None

    # --- functions ------------------------------------------------------------------------------------

    def make_queue(self, function: Function) -> FunctionQueue:
        """Return the queue of a function; make it if there is none."""
        queue = self.queues.get(function)
        if queue is None:
            queue = self.record_queue(self.plan_queue(self.next_queue, function))
            self.next_queue += 1
        return queue

    def plan_queue(self, id: int, function: Function) -> FunctionQueue:
        """Return a new queue of a function, which is not entered yet."""
        queue = FunctionQueue(id, function)
        self.recording.attach(queue)
        return queue

    def number_of_worker(self, name: str) -> int:
        """Return the number by which outcomes refer to a worker of this name; a new name gets a row."""
        number = self.worker_numbers.get(name)
        if number is None:
            if len(self.worker_numbers) >= MOST_WORKER_NAMES:  # a name that comes back gets a number and a row again
                self.worker_numbers.clear()
            number = self.worker_numbers[name] = self.next_worker
            self.next_worker += 1
            self.changes.worker_names.append(WorkerNameRow(number, name))
        return number

    def record_queue(self, planned: FunctionQueue) -> FunctionQueue:
        """Enter a new queue, with its row, unless its function has one by now. Return the queue of the function."""
        queue = self.queues.get(planned.function)
        if queue is None:
            queue = self.enter_queue(planned)
            self.changes.functions.append(FunctionRow(queue.id, queue.function))
        return queue

    def enter_queue(self, queue: FunctionQueue) -> FunctionQueue:
        """Enter the queue of a function that has a row."""
        self.queues[queue.function] = self.queue_by_id[queue.id] = queue
        queue.is_paused = queue.function.queue in self.paused
        if queue.is_limited:
            self.rates.join(queue)
        self.key_pauses.apply(queue)
        self.functions_size += _size_of(queue.function)
        return queue

    def declare(self, queue: FunctionQueue) -> None:
        """Apply the figures that a function declares for its limits from now on."""
        changed = self.rates.declare(queue)
        if changed is not None:
            self.effects.limits.append(changed)

    def drop_queue(self, id: int) -> bool:
        """Drop the queue of a function that no stored node names, unless something in memory uses it."""
        queue = self.queue_by_id[id]
        if queue.is_limited and not self.rates.leave(queue):
            return False
        function = queue.function
        del self.queue_by_id[id], self.queues[function]
        self.functions_size -= _size_of(function)
        # Nodes, also planned ones, reference their queues: if nothing else does, it is freed with this name. If it
        # would only be freed later, it stays until the next attempt to drop it.
        left = weakref.ref(queue)
        del queue
        used = left()
        if used is not None:
            self.enter_queue(used)
            return False
        self.changes.functions_gone.append(id)
        return True

    def queue_for_key(self, queue: FunctionQueue, key: str) -> FunctionQueue:
        """Return the queue of a concurrency key of a function, for a node that may yet be refused."""
        keyed = self.keyed.get((queue.id, key))
        if keyed is None:
            self._last_keyed -= 1
            keyed = FunctionQueue(queue.id, queue.function, key, self._last_keyed, queue)
        return keyed

    def register_keyed(self, node: Node) -> None:
        """Count a node with a concurrency key: the queue of the key lasts as long as it has such a node."""
        queue = node.queue = self.keyed.setdefault((node.queue.id, node.queue.key), node.queue)
        queue.nodes += 1
        if queue.function.rate_by_key:
            self.rates.join_key(queue, self.now)
        if self.key_pauses.rows:
            self.key_pauses.apply(queue)

    def _leave_keyed(self, queue: FunctionQueue) -> None:
        queue.nodes -= 1
        if not queue.nodes:
            del self.keyed[queue.id, queue.key]
            if queue.gate is not None:
                self.rates.leave_key(queue)

    # --- nodes and instances --------------------------------------------------------------------------

    def find(self, id: bytes) -> Node | None:
        """Return an unfinished node by its 16-byte ID."""
        counter = int.from_bytes(id[12:], "big")
        block = block_with(self.origins.get(id[:12], ()), counter)
        return self.nodes.get(block.key_of(counter)) if block is not None else None

    def unfinished_of(self, instance: bytes) -> Iterator[Node]:
        """Yield the unfinished nodes of an instance, including nodes that are made meanwhile."""
        known = self.instances.get(instance)
        for block in known.blocks if known is not None else ():
            for start in range(block.first_key, block.first_key + block.count, STEP):
                keys = range(start, min(start + STEP, block.first_key + block.count))
                yield from [self.nodes[key] for key in keys if key in self.nodes]

    def load_instance(self, stored: StoredInstance) -> None:
        """Load an instance that has left memory, with its signals, because a call names it."""
        row = stored.row
        if row.id not in self.instances:
            drafted = self.drafted.get(row.id)
            self.instances[row.id] = drafted or self.loaded_instance(stored)

    def loaded_instance(self, stored: StoredInstance) -> Instance:
        """Return an instance that has left memory. Nodes of it that fail from now on call its hook again."""
        row, hook = stored.row, stored.hook
        instance, line = Instance(row.key, row.id, stored.failed), self.turns.line(row.priority)
        instance.line_up(line, line.turn_of_old(row.key), row.priority)
        instance.hook = hook.revived(False) if hook is not None else None
        self.mail.load(stored.mail)
        return instance

    def enter_block(self, block: NodeBlock) -> None:
        """Make the nodes of a block findable by their IDs."""
        block.instance.blocks.append(block)
        of_origin = self.origins.setdefault(block.origin, [])
        if of_origin and of_origin[-1].first > block.first:
            insort(of_origin, block, key=FIRST)
        else:
            of_origin.append(block)

    def keep_trace(self, first_key: int, trace: str) -> None:
        """Keep the trace context of a new block, by its first key."""
        self.traces[first_key] = trace
        self.changes.traces.append(TraceRow(first_key, trace))

    def evict_idle(self, ids: Iterable[bytes]) -> None:
        """Evict instances without unfinished nodes."""
        for id in ids:
            instance = self.instances.get(id)
            if instance is not None and not instance.live:
                self._forget_instance(instance)

    def _forget_instance(self, instance: Instance) -> None:
        """Evict an instance from memory; the store has it."""
        self.instances.pop(instance.id, None)
        if instance.id not in self.drafted:
            self.mail.forget(instance.key)
        for block in instance.blocks:
            self.origins.pop(block.origin, None)
            if self.traces:
                self.traces.pop(block.first_key, None)
        instance.blocks = []
        if instance.fair is not None:
            instance.line.leave(instance.fair)
            instance.fair = None
