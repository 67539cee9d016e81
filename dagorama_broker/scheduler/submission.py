"""Makes nodes: a plan finds out in full what a call asks for, and is refused or carried out as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dagorama_broker.errors import Conflict, InvalidArgument, NotFound
from dagorama_broker.model.delays import DelayRow
from dagorama_broker.model.domain import Function
from dagorama_broker.model.rows import InstanceEnd, KeyRow, LargeRow, NodeBlockRow, NodeRow
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.instances import Instance, NodeBlock
from dagorama_broker.scheduler.mail import enter
from dagorama_broker.scheduler.names import FIRST, block_with, node_id, refuse_overlaps
from dagorama_broker.scheduler.objects import Node, Reservation
from dagorama_broker.scheduler.queues import FunctionQueue
from dagorama_broker.scheduler.requests import AnnouncedKey, NewNodes
from dagorama_broker.scheduler.transitions import WAITING

#: Nodes that one step of a plan looks at.
PORTION = 2_000


class SubmissionPlan:
    """Nodes and instances that a call asks for. Nothing changes before it is carried out."""

    def __init__(
        self,
        graph: Graph,
        blocks: Sequence[NewNodes],
        known: Mapping[bytes, Node],
        reservation: Reservation | None = None,
    ) -> None:
        """`known` has ended nodes, read from the store, by the IDs that the blocks name.

        Without a reservation the plan is complete at once, or raises InvalidArgument, NotFound or Conflict. With one,
        the caller completes it by `steps`.
        """
        self.nodes: list[Node] = []
        self.new_blocks = blocks
        self.blocks: list[NodeBlock] = []  #: planned or made ones, one for each of `new_runs`
        self.cache_keys: dict[int, AnnouncedKey] = {}  #: of planned nodes whose caller knows them, by their keys
        self._graph = graph
        self._known = known
        self._reservation = reservation
        self._first_key = reservation.first_key if reservation is not None else graph.next_node
        self._first_instance = reservation.first_instance if reservation is not None else graph.next_instance
        self._instances: dict[bytes, tuple[Instance, NewNodes]] = {}
        self._origins: dict[bytes, list[NodeBlock]] = {}
        self._new_queues: dict[Function, FunctionQueue] = {}
        self._limited: list[Function] = []
        self._last: NodeBlock | None = None  # the block that was looked into last
        if reservation is None:
            for _ in self.steps():
                pass

    # --- names ----------------------------------------------------------------------------------------

    def find(self, id: bytes) -> Node | None:
        """Return a planned, unfinished or known node by its 16-byte ID."""
        return self.at(id[:12], int.from_bytes(id[12:], "big")) or self._known.get(id)

    def at(self, origin: bytes, counter: int) -> Node | None:
        """Return a planned or unfinished node by origin and counter."""
        block = self._last
        if block is None or block.origin != origin or not block.first <= counter < block.first + block.count:
            block = block_with(self._origins.get(origin, ()), counter)
            block = block or block_with(self._graph.origins.get(origin, ()), counter)
            if block is None:
                return None
            self._last = block
        key = block.key_of(counter)
        place = key - self._first_key
        return self.nodes[place] if 0 <= place < len(self.nodes) else self._graph.nodes.get(key)

    def named(self, origin: bytes, counter: int) -> Node | None:
        """Return a known node, which has ended, by origin and counter."""
        return self._known.get(node_id(origin, counter))

    def has(self, node: Node) -> bool:
        """Return whether the plan makes this node."""
        return 0 <= node.key - self._first_key < len(self.nodes)

    # --- finding out ----------------------------------------------------------------------------------

    def steps(self) -> Iterator[int]:
        """Find out in full what is asked for, block by block. Yield how many nodes and sources each step looked at.

        Raises InvalidArgument, NotFound or Conflict.
        """
        for new in self.new_blocks:
            yield from self._take_in(new)
        for origin, blocks in self._origins.items():
            blocks.sort(key=FIRST)
            refuse_overlaps(blocks, self._graph.origins.get(origin, ()))
            yield len(blocks)
        for new, block in zip(self.new_blocks, self.blocks, strict=True):
            if new.sources is not None:
                first = block.first_key - self._first_key
                nodes = self.nodes[first : first + block.count]
                for start in range(0, block.count, PORTION):
                    yield self._connect(new, nodes, start)

    def _take_in(self, new: NewNodes) -> Iterator[int]:
        count = new.count
        if len(new.arguments) != count or (new.sources is not None and len(new.sources) != count):
            raise InvalidArgument("the columns of a block of nodes have different lengths")
        instance, first_key = self._instance_of(new), self._first_key + len(self.nodes)
        block = NodeBlock(new.origin, new.first, count, first_key, instance, new.digest)
        if count:
            self._refuse_reserved(new.origin)
            self._origins.setdefault(block.origin, []).append(block)
        self.blocks.append(block)
        queues = {index: self._queue_of(new.functions[index]) for index in set(new.function)}
        for start in range(0, max(count, 1), PORTION):
            portion = self._queues_of(new, queues, start)
            self.nodes += [Node(key, instance, queue, block) for key, queue in enumerate(portion, first_key + start)]
            yield len(portion) + 1
        for place, delay in (new.delays or {}).items():
            self.nodes[first_key - self._first_key + place].delay = delay
        for place, wait in (new.waits or {}).items():
            self.nodes[first_key - self._first_key + place].wait = wait
        if new.cache_keys:
            self.cache_keys.update({first_key + place: key for place, key in new.cache_keys.items()})

    def _queue_of(self, function: Function) -> FunctionQueue:
        """Return the queue of a function. A new one is only planned: a plan that is refused leaves none behind."""
        graph = self._graph
        queue = graph.queues.get(function) or self._new_queues.get(function)
        if function.is_limited:
            self._limited.append(function)
        if queue is None and self._reservation is not None:
            queue = self._new_queues[function] = graph.plan_queue(graph.next_queue, function)
            graph.next_queue += 1  # other calls make queues before this plan is carried out
        elif queue is None:
            queue = self._new_queues[function] = graph.plan_queue(graph.next_queue + len(self._new_queues), function)
        return queue

    def _queues_of(self, new: NewNodes, queues: Mapping[int, FunctionQueue], start: int) -> list[FunctionQueue]:
        """Return the queues of a portion of nodes, by their functions and concurrency keys."""
        found = list(map(queues.__getitem__, new.function[start : start + PORTION]))
        if new.key:
            for place, key in enumerate(new.key[start : start + PORTION]):
                if key:
                    found[place] = self._graph.queue_for_key(found[place], new.keys[key - 1])
        return found

    def _instance_of(self, new: NewNodes) -> Instance:
        id, creates, graph = new.instance, new.creates, self._graph
        instance = graph.instances.get(id) or (graph.drafted.get(id) if self._reservation is not None else None)
        planned, creator = self._instances.get(id, (None, None))
        if creates is not None and (instance or (creator is not None and creator.creates != creates)):
            raise Conflict(f"instance {id.hex()} exists already, with other content")
        if creates is not None and planned is None:
            self._refuse_reserved(id)
            planned = Instance(self._first_instance + len(self._instances), id)
            self._instances[id] = planned, new
        instance = instance or planned
        if instance is None:
            raise NotFound(f"instance {id.hex()} is not known to this broker")
        return instance

    def _refuse_reserved(self, name: bytes) -> None:
        """Raise Conflict if a large call makes this origin or instance; if this is a large call, reserve the name."""
        reserved = self._graph.reserved
        if not reserved and self._reservation is None:
            return
        if reserved.get(name, self._reservation) is not self._reservation:
            raise Conflict(f"another call makes {name.hex()} at this moment")
        if self._reservation is not None:
            reserved[name] = self._reservation

    def _connect(self, new: NewNodes, nodes: list[Node], start: int) -> int:
        """Set the sources of a portion of nodes of a block; return how many nodes and sources these are."""
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

    def _sources(self, new: NewNodes, nodes: list[Node], place: int, references: Sequence[int]) -> tuple[Node, ...]:
        """Return the nodes that references name: earlier ones of the block, or others by their names."""
        first, sources = new.first, []
        for reference in references:
            if reference < first:
                sources.append(self._other(new, reference, nodes[place]))
            elif reference - first < place:
                sources.append(nodes[reference - first])
            else:
                raise InvalidArgument("a node names itself, or a node that is made after it, as a source")
        if len(sources) > 1 and len(set(sources)) != len(sources):
            raise InvalidArgument("a node names the same source twice")
        return tuple(sources)

    def _other(self, new: NewNodes, reference: int, node: Node) -> Node:
        if reference >= 0:
            source = self.at(new.origin, reference) or self.named(new.origin, reference)
        else:
            source = self.find(new.foreign[-1 - reference])
        if source is None or (source.key >= node.key and self.has(source)):
            id = node_id(new.origin, reference) if reference >= 0 else new.foreign[-1 - reference]
            raise NotFound(f"source {id.hex()} is not known to this broker")
        if source.instance.key != node.instance.key:
            raise InvalidArgument("a source is of another instance than the node that names it")
        return source

    # --- carrying out ---------------------------------------------------------------------------------

    def make(self, creator: int = 0) -> None:
        """Carry the plan out at once; `creator` is the key of the node whose attempt asked for it."""
        graph = self._graph
        graph.next_node += len(self.nodes)
        graph.next_instance += len(self._instances)
        graph.next_queue += len(self._new_queues)
        self.record_functions()
        for new, block in zip(self.new_blocks, self.blocks, strict=True):
            self.enter_nodes(block, new.arguments)
        self.publish(creator)
        for node in self.nodes:
            graph.start(node, self.cache_keys.get(node.key))
        graph.evict_idle(new.instance for new in self.new_blocks)

    def record_functions(self) -> None:
        """Enter the queues of new functions, with their rows; the figures of their limits hold from now on."""
        for planned in self._new_queues.values():
            queue = self._graph.record_queue(planned)
            if queue is not planned:  # another call has made one since it was planned
                self._use_instead(planned, queue)
        for function in self._limited:
            self._graph.declare(self._graph.queues[function])

    def _use_instead(self, planned: FunctionQueue, queue: FunctionQueue) -> None:
        for node in self.nodes:
            if node.queue.base is planned:
                node.queue = self._graph.queue_for_key(queue, node.queue.key) if node.queue.key else queue

    def enter_nodes(
        self, block: NodeBlock, arguments: Sequence[bytes], start: int = 0, end: int | None = None
    ) -> list[Node]:
        """Enter nodes of a block, by their places in it, with their rows: they cannot be found by their names yet."""
        graph, changes, first = self._graph, self._graph.changes, block.first_key - self._first_key
        end = block.count if end is None else min(end, block.count)
        nodes, instance_key = self.nodes[first + start : first + end], block.instance.key
        graph.counts[WAITING] += len(nodes)
        graph.nodes.update([(node.key, node) for node in nodes])
        changes.nodes += [
            NodeRow(node.key, instance_key, node.queue.id, node.packed_sources(), bytes)
            for node, bytes in zip(
                nodes, arguments[start:end] if start or end < block.count else arguments, strict=True
            )
        ]
        for node in nodes:
            if node.queue.key:
                graph.register_keyed(node)
                changes.keys.append(KeyRow(node.key, node.queue.key))
            if node.rare is not None and node.rare.delay is not None:
                changes.delays.append(DelayRow(node.key, *node.rare.delay))
            if node.rare is not None and node.rare.wait is not None:
                enter(graph, node, node.rare.wait)
        return nodes

    def publish(self, creator: int) -> None:
        """Make the instances and the blocks, whose nodes were entered.

        All are made before any node is started: a node that fails at once may be the last unfinished one of its
        instance.
        """
        graph = self._graph
        for instance, new in self._instances.values():
            graph.instances[instance.id] = instance
            graph.record_instance(instance, new)
        for new, block in zip(self.new_blocks, self.blocks, strict=True):
            if block.count:
                self._publish_block(new, block, creator)
        for instance, _ in self._instances.values():
            if not instance.live:  # no node of it could end it
                graph.changes.instance_ends.append(InstanceEnd(instance.key, graph.now + graph.wall, False))

    def _publish_block(self, new: NewNodes, block: NodeBlock, creator: int) -> None:
        graph, instance, changes = self._graph, block.instance, self._graph.changes
        if not instance.live and instance.id not in self._instances:
            graph.reopen_instance(instance)
        instance.live += block.count
        graph.enter_block(block)
        graph.unwritten.add(block.origin)
        created = int((graph.now + graph.wall) * 1_000_000)
        changes.blocks.append(
            NodeBlockRow(
                block.origin, block.first, block.count, block.first_key, instance.key, block.digest, creator, created
            )
        )
        changes.large += [LargeRow(block.first_key, sha256) for sha256 in new.large]
        if new.trace:
            graph.keep_trace(block.first_key, new.trace)
