"""Answers questions about the scheduler's state, and changes nothing. The lowest layer of `Scheduler`.

Its answers are for reading: nodes, instances, workers and queues belong to the scheduler.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from dagorama_broker.model.domain import State
from dagorama_broker.model.queries import EndedNode, Failed
from dagorama_broker.model.rows import Changes, RebindingRow
from dagorama_broker.scheduler.ages import ReadyAges
from dagorama_broker.scheduler.claims import Claims
from dagorama_broker.scheduler.demand import DemandLook
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.instances import Instance, NodeBlock
from dagorama_broker.scheduler.limits import Limits, Timing
from dagorama_broker.scheduler.names import FIRST
from dagorama_broker.scheduler.objects import Node, Worker
from dagorama_broker.scheduler.obstacles import Explainer
from dagorama_broker.scheduler.queues import FunctionQueue
from dagorama_broker.scheduler.rebind import Rebindable, ReboundFunction, code_of, rebindable
from dagorama_broker.scheduler.recording import Recording
from dagorama_broker.scheduler.requests import NewNodes
from dagorama_broker.scheduler.restore import ended_nodes
from dagorama_broker.scheduler.retry import is_within_reach, waiting_for, with_dependents
from dagorama_broker.scheduler.staged_children import StagedChildren

#: Bytes, roughly, of an unfinished node without its envelopes, of each source or promise that it waits for, of an
#: instance with its block, and of the queue of a concurrency key.
NODE_BYTES, EDGE_BYTES, INSTANCE_BYTES, KEY_BYTES = 600, 24, 700, 1_300


class Views:
    def __init__(self, epoch: int, limits: Limits | None = None, timing: Timing | None = None) -> None:
        self.epoch = epoch
        self.limits = limits or Limits()
        self.timing = timing or Timing()
        self.graph = Graph()
        self.claims = Claims(self.graph, epoch)
        self.eager_attempts = self.claims.eager_attempts
        self.staged = self.claims.staged

    # --- nodes and instances --------------------------------------------------------------------------

    @property
    def nodes(self) -> Mapping[int, Node]:
        """Unfinished nodes, by key."""
        return self.graph.nodes

    @property
    def instances(self) -> Mapping[bytes, Instance]:
        """Instances with an unfinished node, by ID."""
        return self.graph.instances

    @property
    def counts(self) -> Sequence[int]:
        """Number of nodes in each state; ended ones since the start of this broker."""
        return self.graph.counts

    @property
    def nodes_made(self) -> int:
        """A count that rises by one with each new node."""
        return self.graph.next_node

    @property
    def last_stored(self) -> int:
        """The largest key of a node that an earlier broker stored; 0: none. Keys close to it are not used again."""
        return self.graph.last_stored

    @property
    def has_eager_attempts(self) -> bool:
        """Whether nodes were made by attempts that still run, and may be cancelled with them."""
        return bool(self.eager_attempts.open)

    @property
    def instances_made(self) -> int:
        """A count that rises by one with each new instance."""
        return self.graph.next_instance

    def node(self, id: bytes) -> Node | None:
        """Return an unfinished node by its 16-byte ID."""
        return self.graph.find(id)

    def instance(self, id: bytes) -> Instance | None:
        """Return an instance with an unfinished node by its 16-byte ID."""
        return self.graph.instances.get(id)

    def unfinished_of(self, instance: bytes) -> Iterator[Node]:
        """Yield the unfinished nodes of an instance, including nodes that are made meanwhile."""
        return self.graph.unfinished_of(instance)

    def ended_nodes(self, rows: Iterable[EndedNode]) -> dict[int, Node]:
        """Return ended nodes, by key; `rows` must have all nodes that their completed values name."""
        return ended_nodes(self.graph, rows)

    def has_origin(self, origin: bytes) -> bool:
        """Return whether nodes of this origin are of an instance that is in memory."""
        return origin in self.graph.origins

    def last_block(self, origin: bytes, end: int) -> NodeBlock | None:
        """Return the last block of this origin in memory that begins before the counter `end`."""
        blocks = self.graph.origins.get(origin, ())
        place = bisect_left(blocks, end, key=FIRST) - 1
        return blocks[place] if place >= 0 else None

    def is_reserved(self, block: NewNodes) -> bool:
        """Return whether a large call that is not decided yet makes something that this block names."""
        reserved = self.graph.reserved
        return bool(reserved) and any(
            name in reserved for name in (block.origin, block.instance, *[id[:12] for id in block.foreign])
        )

    def running_since(self, node: Node) -> float:
        """Return when a node began to run, in seconds since 1970; 0: it does not run, as far as is known."""
        slot = node.slot
        if slot is None or next(iter(slot.held)) != node.attempt:
            return 0.0
        return slot.progress_at + self.wall

    # --- functions ------------------------------------------------------------------------------------

    @property
    def function_queues(self) -> Mapping[int, FunctionQueue]:
        """The queues of all functions, by the ID of the function."""
        return self.graph.queue_by_id

    @property
    def active_queues(self) -> Mapping[int, FunctionQueue]:
        """The queues of functions with a queued node, by the ID of the function."""
        return self.graph.active

    @property
    def functions_size(self) -> int:
        """Bytes that functions take in memory, roughly."""
        return self.graph.functions_size

    def unschedulable(self, queues: Iterable[FunctionQueue]) -> list[tuple[FunctionQueue, str]]:
        """Return the queues whose nodes no connected worker may run, and why."""
        return self.claims.unschedulable(queues)

    def unschedulable_reason(self, queue: FunctionQueue) -> str | None:
        """Return why no connected worker may run nodes of this function; None: one may."""
        return self.claims.unschedulable_reason(queue)

    def explainer(self) -> Explainer:
        """Return an object that explains why nodes have not ended; see `Explainer`."""
        return Explainer(self.claims)

    # --- code that has changed ------------------------------------------------------------------------

    @property
    def has_rebound(self) -> bool:
        """Whether any unfinished node is run by other code than it was made with."""
        return bool(self.graph.made_with)

    def rebound(self, key: int) -> tuple[str, RebindingRow | None]:
        """Return the code that a node was made with, and the rebinding that allows other code; empty and None: it has
        its original code."""
        return self.graph.made_with.get(key, ""), self.graph.rebindings.get(key)

    def code_of(self, node: Node) -> str:
        """Return the code that an unfinished node was made with."""
        return code_of(self.graph, node)

    def rebindable(self, asked: ReboundFunction) -> Rebindable:
        """Return the nodes that a rebinding would concern now. Raises NotFound or FailedPrecondition."""
        return rebindable(self.claims, asked)

    def deployed(self, queue: FunctionQueue) -> list[str]:
        """Return the hashes of other code that connected workers have of this function."""
        return self.claims.deployed(queue)

    def waiting_for_old_code(self, instance: bytes) -> list[Node]:
        """Return the nodes of an instance that are queued for code which no connected worker has."""
        queued = [node for node in self.unfinished_of(instance) if node.state is State.QUEUED]
        old = {queue for queue in {node.queue for node in queued} if self.claims.needs_rebinding(queue)}
        return [node for node in queued if node.queue in old]

    # --- traces ---------------------------------------------------------------------------------------

    @property
    def has_traced(self) -> bool:
        """Whether any unfinished node may be traced."""
        return bool(self.graph.traces)

    def trace_of(self, node: Node) -> str:
        """Return the trace context of what created a node; empty: it is not traced."""
        return self.graph.traces.get(node.block.first_key, "") if node.block is not None else ""

    # --- workers --------------------------------------------------------------------------------------

    @property
    def workers(self) -> Mapping[bytes, Worker]:
        """Connected workers, by ID."""
        return self.claims.workers

    def is_connected(self, worker: Worker) -> bool:
        """Return whether this session of a worker is current: not lost, and not replaced by another."""
        return self.claims.workers.get(worker.info.id) is worker

    def held(self, worker: Worker, key: int, attempt: int) -> Node | None:
        """Return a node, by its key, if this worker holds it under this attempt."""
        return self.claims.held(worker, key, attempt)

    # --- children of running attempts -----------------------------------------------------------------

    @property
    def staged_attempts(self) -> Container[int]:
        """Running attempts with staged children."""
        return self.staged

    def staged_children(self, attempt: int) -> StagedChildren | None:
        """Return the children that an attempt has staged."""
        return self.staged.get(attempt)

    def all_staged(self) -> Iterable[StagedChildren]:
        """Return the staged children of all attempts."""
        return self.staged.values()

    def is_eager(self, worker: Worker, key: int, attempt: int) -> bool:
        """Return whether this worker runs this attempt, and its children are visible at once."""
        node = self.claims.held(worker, key, attempt)
        return node is not None and node.queue.function.stream_children

    def has_made(self, key: int, block: NewNodes) -> bool:
        """Return whether the running attempt of this node has made these children already."""
        return self.eager_attempts.has_made(key, block)

    def origin_of_children(self, key: int) -> bytes:
        """Return the origin of the children that the running attempt of this node has made at once; empty: none."""
        return self.eager_attempts.origin_of(key)

    # --- retries --------------------------------------------------------------------------------------

    def is_within_reach(self, failed: Failed) -> bool:
        """Return whether all that these nodes wait for is in memory or was read with them; else read them again."""
        return is_within_reach(self.graph, failed)

    def waiting_for(self, failed: Failed) -> Iterator[Node]:
        """Yield unfinished nodes that would wait for these nodes if they were retried."""
        return waiting_for(self.graph, failed)

    def with_dependents(self, failed: Failed, others: Iterable[Node]) -> list[Node]:
        """Return the unfinished ones of these nodes, the others, and all that depends on them."""
        return with_dependents(self.graph, failed, others)

    # --- time, memory and commits ---------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The scheduler's clock, in seconds."""
        return self.graph.now

    @property
    def wall(self) -> float:
        """The difference between seconds since 1970 and the scheduler's clock."""
        return self.graph.wall

    @property
    def changes(self) -> Changes:
        """The rows that the next `drain` returns."""
        return self.graph.changes

    def is_unwritten(self, id: bytes) -> bool:
        """Return whether `changes` makes this instance, or nodes of this origin."""
        return id in self.graph.unwritten

    @property
    def is_settled(self) -> bool:
        """Whether no work is put off to later steps; the children of aborted attempts are cancelled in the next one."""
        return not (self.graph.starting or self.graph.unnotified or self.eager_attempts.aborted)

    # --- figures --------------------------------------------------------------------------------------

    def record(self) -> Recording:
        """Count what happens from now on, and return the counts. Call it before `restore` and all verbs."""
        return self.graph.record()

    def ready_ages(self) -> ReadyAges:
        """Return an object that tells how long nodes have been queued; see `ReadyAges`."""
        return ReadyAges(self.graph)

    def demand(self, ages: ReadyAges) -> DemandLook:
        """Return an object that tells the demand of pools of workers at this moment; see `DemandLook`."""
        return DemandLook(self.claims, ages)

    def lacks_code(self, queue: FunctionQueue) -> bool:
        """Return whether no worker may run nodes of this function, and one of them only because of its code."""
        return self.claims.lacks_code(queue)

    def memory_size(self) -> int:
        """Return the bytes that the scheduler takes, roughly."""
        graph, staged = self.graph, self.staged.cost
        return (
            len(graph.nodes) * NODE_BYTES + graph.edges * EDGE_BYTES + len(graph.instances) * INSTANCE_BYTES
            + len(graph.keyed) * KEY_BYTES + graph.functions_size + graph.failures_size + graph.mail.size + staged
        )  # fmt: skip
