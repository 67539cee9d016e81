"""Collect outcomes as columns and cut them into messages; child nodes come before the outcome of their attempt.

Any thread may add outcomes. They are sent in order, when there are enough of them or when `flush` is called.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.errors import RequestRejected
from dagorama.graph.node_batch import NODE_LIMIT, NodeBatch
from dagorama.graph.scope import AttemptScope
from dagorama.values.codec import Encoded
from dagorama.values.envelope import large_values
from dagorama.worker.child.results_piece import Piece
from dagorama.worker.failures import truncate
from dagorama.worker.frames import Kind, Outcome

FLUSH_NODES = 256
FLUSH_BYTES = 1 << 20
DETAIL_BYTES = 4 << 10
REF_BYTES = 24  #: the most that one promise adds to a message

Send = Callable[[Kind, Outcome], None]


class _Why(NamedTuple):
    """The reason why nodes are returned. Its fields have the names of Return's fields."""

    reason: pb.ReturnReason.ValueType
    detail: str
    hash: str
    function: str  #: empty if there is nothing wrong with the function


class _Growing:
    """A running attempt whose child nodes are sent as they are made, and which of them were sent."""

    __slots__ = ("attempt", "grown", "node", "nodes", "size", "told")

    def __init__(self, node: int, attempt: int) -> None:
        self.node = node
        self.attempt = attempt
        self.told: dict[bytes, int] = {}  #: how many nodes of each range were sent, by its origin
        self.grown: dict[bytes, NodeBatch] = {}  #: ranges with nodes that were not sent
        self.nodes = self.size = 0  #: number and approximate bytes of nodes that were not sent


class Outbox:
    """Collects outcomes and hands messages to `send`, which is called by one thread at a time."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.sent = 0  #: messages so far
        self.traces: dict[int, str] = {}  #: trace contexts of attempts whose values come next, by attempt
        self._lock = Lock()
        self._piece = Piece()
        self._growing: dict[int, _Growing] = {}  # by attempt
        self.on_waiting: Callable[[], None] = lambda: None  #: called when child nodes wait for a flush
        self._returned: dict[_Why, list[tuple[int, int]]] = defaultdict(list)
        self._looked_up: list[tuple[int, int, bytes]] = []  # nodes, their attempts and cache keys

    def completed(self, node: int, attempt: int, value: bytes, microseconds: int) -> None:
        """Add a value without promises and large parts, of an attempt without child nodes."""
        with self._lock:
            piece = self._add_value(node, attempt, value, microseconds)
            if len(piece.node) >= FLUSH_NODES or piece.size >= FLUSH_BYTES:
                self._cut()

    def completed_with(self, node: int, attempt: int, encoded: Encoded, scope: AttemptScope, microseconds: int) -> None:
        """Add a value with the child nodes of its attempt."""
        with self._lock:
            growing = self._growing.pop(attempt, None)
            for run in scope.runs:
                self._add_children(node, attempt, run, growing.told.get(run.origin, 0) if growing is not None else 0)
            self._make_room(weight(encoded))
            piece = self._add_value(node, attempt, encoded.envelope, microseconds)
            if scope.cached is not None:
                piece.add_cached(scope.cached)
            if encoded.refs:
                piece.name_references(encoded.refs, scope.origin or b"")
                piece.size += REF_BYTES * len(encoded.refs)
            if large := large_values(encoded.envelope):
                piece.large += large
                piece.large_of += [len(piece.node) - 1] * len(large)
            self._cut_if_full()

    def failed(self, failure: pb.Failure) -> None:
        """Add a failure."""
        with self._lock:
            self._growing.pop(failure.attempt, None)
            size = failure.ByteSize()
            self._make_room(size)
            self._piece.failures.append(failure)
            self._piece.size += size
            self._cut_if_full()

    def logged(self, log: pb.NodeLog) -> None:
        """Add a part of the log of an attempt, before the outcome of the attempt."""
        with self._lock:
            size = log.ByteSize()
            self._make_room(size)
            self._piece.logs.append(log)
            self._piece.size += size

    def stack(self, text: str) -> None:
        """Send the stack of a coroutine now."""
        with self._lock:
            self._hand_over(Kind.STACK, Outcome([], [], text.encode("utf-8", "backslashreplace")))

    def reported(self, report: pb.NodeReport) -> None:
        """Add what a running node says about its progress."""
        with self._lock:
            self._piece.reports.append(report)
            self._piece.size += report.ByteSize()

    def returned(
        self,
        node: int,
        attempt: int,
        reason: pb.ReturnReason.ValueType,
        detail: str = "",
        deployed: str = "",
        function: str = "",
    ) -> None:
        """Give a node back without an outcome, at the next flush. `deployed` is the hash of the code found here."""
        with self._lock:
            self._growing.pop(attempt, None)
            why = _Why(reason, truncate(detail, DETAIL_BYTES), deployed, function)
            self._returned[why].append((node, attempt))

    def look_up(self, node: int, attempt: int, cache_key: bytes) -> None:
        """Give a node back so that the broker looks its cache key up, at the next flush."""
        with self._lock:
            self._looked_up.append((node, attempt, cache_key))

    def follow(self, node: int, attempt: int, scope: AttemptScope) -> None:
        """Send the child nodes of this attempt soon after they are made, until it has an outcome or is `dropped`."""
        growing = self._growing[attempt] = _Growing(node, attempt)

        def grown(run: NodeBatch, size: int) -> None:
            with self._lock:
                growing.grown[run.origin] = run
                growing.nodes += 1
                growing.size += size
                if growing.nodes >= FLUSH_NODES or growing.size >= FLUSH_BYTES:
                    self._add_grown(growing)
                    self._cut()
                    return
            self.on_waiting()

        scope.on_growth = grown

    def dropped(self, attempt: int) -> None:
        """Drop child nodes of this attempt that were not sent yet."""
        with self._lock:
            self._growing.pop(attempt, None)

    def flush(self) -> None:
        """Send everything now."""
        with self._lock:
            for growing in self._growing.values():
                self._add_grown(growing)
            self._cut()
            if self._looked_up:
                self._hand_over_keys()
            returned, self._returned = self._returned, defaultdict(list)
            for why, pairs in returned.items():
                nodes, attempts = [node for node, _ in pairs], [attempt for _, attempt in pairs]
                body = pb.Return(node=nodes, attempt=attempts, **why._asdict())
                self._hand_over(Kind.RETURN, Outcome(attempts, [], body.SerializeToString()))

    def _hand_over_keys(self) -> None:
        looked_up, self._looked_up = self._looked_up, []
        nodes, attempts, keys = zip(*looked_up, strict=True)
        body = pb.Return(node=nodes, attempt=attempts, reason=pb.CACHE_KEY, cache_key=keys)
        self._hand_over(Kind.RETURN, Outcome(list(attempts), [], body.SerializeToString()))

    def _add_value(self, node: int, attempt: int, value: bytes, microseconds: int) -> Piece:
        """Add a value to the piece, and return the piece."""
        piece = self._piece
        piece.node.append(node)
        piece.attempt.append(attempt)
        piece.value.append(value)
        piece.microseconds.append(microseconds)
        piece.size += len(value)
        if self.traces and (trace := self.traces.pop(attempt, "")):
            piece.trace.append(trace)
            piece.trace_of.append(len(piece.node) - 1)
            piece.size += len(trace)
        return piece

    def _add_grown(self, growing: _Growing) -> None:
        if growing.attempt in self._growing:
            for origin, run in growing.grown.items():
                start = growing.told.get(origin, 0)
                if len(run) > start:  # a range without nodes can wait for the outcome
                    growing.told[origin] = self._add_children(growing.node, growing.attempt, run, start)
        growing.grown.clear()
        growing.nodes = growing.size = 0

    def _add_children(self, node: int, attempt: int, run: NodeBatch, told: int) -> int:
        """Add the nodes from index `told` on, and return the index of the first node that was made meanwhile."""
        stop = told
        for start, stop in run.pieces(start=told):
            if told and start == stop:
                break  # there are no more nodes
            message = run.to_message(self._piece.functions, start, stop)
            size = message.ByteSize()
            if self._make_room(size):
                message = run.to_message(self._piece.functions, start, stop)
            self._piece.children.append(pb.Children(node=node, attempt=attempt, nodes=message))
            self._piece.of_children += message.large
            self._piece.size += size
        return stop

    def _make_room(self, size: int) -> bool:
        """Send the collected outcomes if `size` bytes more are too many. Return whether they were sent."""
        if not self._piece.size or self._piece.size + size <= FLUSH_BYTES:
            return False
        self._cut()
        return True

    def _cut_if_full(self) -> None:
        piece = self._piece
        if len(piece.node) >= FLUSH_NODES or piece.size >= FLUSH_BYTES:
            self._cut()

    def _cut(self) -> None:
        piece = self._piece
        if piece.node or piece.failures or piece.children or piece.logs or piece.reports:
            self._piece = Piece()
            self._hand_over(Kind.RESULTS, piece.outcome())

    def _hand_over(self, kind: Kind, outcome: Outcome) -> None:
        self.sent += 1
        self._send(kind, outcome)


def weight(encoded: Encoded) -> int:
    """Return the most bytes that a value adds to a message."""
    return len(encoded.envelope) + REF_BYTES * len(encoded.refs)


def refuse_excess(encoded: Encoded) -> None:
    """Raise RequestRejected if a result names more promises than one message holds."""
    if weight(encoded) > NODE_LIMIT:
        raise RequestRejected(
            f"the result names {len(encoded.refs):,} promises, more than one message holds; reduce them in groups",
            "INVALID_ARGUMENT",
        )
