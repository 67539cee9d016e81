"""Writes the grants of one slot as messages: columns are gathered in lists, from which messages are cut.

A node costs an entry in each list. Columns that are mostly empty (sources, failed attempts, timeouts) begin with the
first node that has a value there, also in a later piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import FIRST_FOUND, MESSAGE_TARGET, NAMES_LARGE
from dagorama_broker.model.domain import State
from dagorama_broker.model.rows import CachedRow, RebindingRow
from dagorama_broker.rpc.functions import function_message
from dagorama_broker.rpc.large_values import large_in
from dagorama_broker.scheduler import FunctionQueue, Granted, Instance, Node

T = TypeVar("T")
#: Makes the proof of a grant of these nodes under these attempts.
Prove: TypeAlias = "Callable[[Sequence[int], Sequence[int]], bytes]"

#: Bytes that a node, and a value, take in addition to their envelopes, roughly.
NODE_BYTES, VALUE_BYTES = 64, 32


class _Rare(Generic[T]):
    """A column that is left out as long as it holds its default only."""

    __slots__ = ("count", "default", "rest")

    def __init__(self, default: T) -> None:
        self.default = default
        self.count = 0  #: entries, including the ones that were taken; 0: it has not begun
        self.rest: list[T] = []  #: entries that were not taken

    def put(self, place: int, value: T) -> None:
        """Add the entry of that place, which comes after all others."""
        self.rest += [self.default] * (place - self.count)
        self.rest.append(value)
        self.count = place + 1

    def take(self) -> list[T]:
        taken, self.rest = self.rest, []
        return taken


class GrantBuilder:
    """Gathers grants for one slot, cut into pieces that fit a message."""

    def __init__(self, slot: int, prove: Prove) -> None:
        self.slot = slot
        self._prove = prove
        self.finished: list[pb.Grant] = []
        self._start()

    def _start(self) -> None:
        # Of the whole grant.
        self._nodes: list[int] = []
        self._attempts: list[int] = []
        self._large: list[bytes] = []
        self._timeouts, self._final = _Rare(0.0), _Rare(False)
        self._function_of: dict[int, int] = {}  # by the ID of the function
        self._instance_of: dict[bytes, int] = {}
        self._rebinding_of: dict[int, int] = {}  # by the ID of its row
        self._trace_of: dict[str, int] = {}
        self._linked: set[int] = set()
        self._values: set[int] = set()
        self._last_queue: FunctionQueue | None = None
        self._last_instance: Instance | None = None
        # Of the whole grant, and taken piece by piece.
        self._source_counts, self._runs, self._beside, self._made_with = _Rare(0), _Rare(0), _Rare(0), _Rare("")
        self._ref_counts, self._rebinding, self._trace = _Rare(0), _Rare(0), _Rare(0)
        self._more_beside_counts, self._cache, self._announced = _Rare(0), _Rare(0), _Rare(b"")
        self._found_count = 0
        self._start_piece()

    def _start_piece(self) -> None:
        self._size = 0
        self._from = len(self._nodes)  # of the piece
        self._functions: list[pb.Function] = []
        self._function: list[int] = []
        self._instances: list[bytes] = []
        self._instance: list[int] = []
        self._ids: list[bytes] = []
        self._arguments: list[bytes] = []
        self._sources: list[int] = []
        self._more_beside: list[int] = []
        self._value_nodes: list[int] = []
        self._value_ids: list[bytes] = []
        self._envelopes: list[bytes] = []
        self._refs: list[int] = []
        self._failed: list[int] = []
        self._rebindings: list[pb.SignedRebinding] = []
        self._traces: list[str] = []
        self._links: list[tuple[int, str]] = []
        self._found: list[pb.CachedNode] = []

    def add(
        self,
        granted: Granted,
        arguments: bytes,
        beside: Sequence[int] = (),
        made_with: str = "",
        rebinding: RebindingRow | None = None,
    ) -> None:
        """Add a node and its arguments. Add its values before it, except for values of the sources `beside`.

        `made_with`: the code that it was made with, if it is bound to other code; `rebinding`: the permission for that.
        """
        node, place = granted.node, len(self._nodes)
        if node.queue is not self._last_queue:
            self._enter_queue(node.queue)
        if node.instance is not self._last_instance:
            self._enter_instance(node.instance)
        run = node.block
        assert run is not None
        self._nodes.append(node.key)
        self._attempts.append(granted.attempt)
        self._function.append(self._lane_index)
        self._instance.append(self._instance_index)
        self._ids.append(run.id_of(node.key))
        self._arguments.append(arguments)
        size = len(arguments)
        if size > 1 and arguments[1] & NAMES_LARGE:
            self._large += large_in(arguments)
        if node.sources or self._source_counts.count:
            self._source_counts.put(place, len(node.sources))
            self._sources += [source.key for source in node.sources]
        if node.rare is not None or self._runs.count:
            self._runs.put(place, node.failures.failed_attempts if node.failures is not None else 0)
        if beside:
            self._beside.put(place, beside[0])
            if len(beside) > 1:
                self._more_beside_counts.put(place, len(beside) - 1)
                self._more_beside += beside[1:]
        if made_with or self._made_with.count:
            self._made_with.put(place, made_with)
        if rebinding is not None:
            self._rebinding.put(place, self._enter_rebinding(rebinding))
        function = node.queue.function
        if function.timeout or self._timeouts.count:
            self._timeouts.put(place, function.timeout)
        if function.timeout_is_final or self._final.count:
            self._final.put(place, function.timeout_is_final)
        self._size += size + NODE_BYTES
        if self._size >= MESSAGE_TARGET:
            self.cut()

    def add_trace(self, trace: str, links: Iterable[tuple[int, str]]) -> None:
        """Name what created the next node, and the attempts of its sources by their keys: it is traced."""
        index = self._trace_of.get(trace)
        if index is None:
            index = self._trace_of[trace] = 1 + len(self._trace_of)
            self._traces.append(trace)
            self._size += len(trace)
        self._trace.put(len(self._nodes), index)
        for source, link in links:
            if source not in self._linked:
                self._linked.add(source)
                self._links.append((source, link))
                self._size += len(link)

    def add_cached(self, found: CachedRow | bool, announced: bytes = b"") -> None:
        """Say what is known of the cache key of the next node, whose function has a cache; see `found_for`.

        `announced` is the key if only the caller of the node has computed it.
        """
        value = int(found is True)
        if isinstance(found, CachedRow):
            value = FIRST_FOUND + self._found_count
            self._found_count += 1
            self._found.append(pb.CachedNode(node=found.node_id, instance=found.instance_id, proof=found.proof))
            self._size += VALUE_BYTES + len(found.proof)
        self._cache.put(len(self._nodes), value)
        if announced:
            self._announced.put(len(self._nodes), announced)
            self._size += len(announced)

    def lacks(self, key: int) -> bool:
        return key not in self._values

    def add_values(self, nodes: Sequence[Node], values: Mapping[int, bytes], ids: Mapping[int, bytes]) -> None:
        """Add values that the next node needs, and the IDs of their nodes; more than a piece is sent ahead."""
        for node in nodes:
            key, envelope = node.key, values[node.key]
            place = len(self._values)
            self._values.add(key)
            self._value_nodes.append(key)
            self._value_ids.append(ids[key])
            self._envelopes.append(envelope)
            refs = node.refs if node.state is State.COMPLETED else ()
            if refs or self._ref_counts.count:
                self._ref_counts.put(place, len(refs))
                self._refs += [ref.key for ref in refs]
            if node.state is not State.COMPLETED:
                self._failed.append(key)
            elif len(envelope) > 1 and envelope[1] & NAMES_LARGE:
                self._large += large_in(envelope)
            self._size += len(envelope) + VALUE_BYTES
            if self._size >= MESSAGE_TARGET:
                self.finished.append(pb.Grant(slot=self.slot, body=self._send_ahead()))

    def take(self) -> list[pb.Grant]:
        """Return the finished pieces."""
        finished, self.finished = self.finished, []
        return finished

    def cut(self) -> None:
        """End the grant; nodes that are added later are in another."""
        self.finish()
        self._start()

    def finish(self) -> None:
        """End the last grant; nothing may be added after it."""
        if self._nodes:
            body = self._send_ahead()
            self.finished.append(pb.Grant(
                slot=self.slot, node=self._nodes, attempt=self._attempts, body=body, last=True, large=self._large,
                timeout=self._timeouts.rest, timeout_is_final=self._final.rest,
                proof=self._prove(self._nodes, self._attempts),
            ))  # fmt: skip

    def _send_ahead(self) -> bytes:
        """Cut within a grant: the columns go on in the next piece, which the receiver joins.

        The receiver joins bytes, so that a body may be cut anywhere. Returns its rest, which is less than a piece.
        """
        body = self._body().SerializeToString()
        end = max(0, len(body) - 1) // MESSAGE_TARGET * MESSAGE_TARGET
        self.finished += [
            pb.Grant(slot=self.slot, body=body[at : at + MESSAGE_TARGET]) for at in range(0, end, MESSAGE_TARGET)
        ]
        self._start_piece()
        return body[end:]

    def _body(self) -> pb.GrantBody:
        columns: dict[str, Any] = {
            "node": self._nodes[self._from :], "attempt": self._attempts[self._from :], "functions": self._functions,
            "function": self._function, "id": self._ids, "instances": self._instances, "instance": self._instance,
            "arguments": self._arguments, "source": self._sources, "value_node": self._value_nodes,
            "value": self._envelopes, "value_ref": self._refs, "failed": self._failed, "value_id": self._value_ids,
            "more_fused": self._more_beside, "rebindings": self._rebindings, "traces": self._traces,
            "linked": [source for source, _ in self._links], "link": [link for _, link in self._links],
            "source_count": self._source_counts.take(), "value_ref_count": self._ref_counts.take(),
            "failed_attempts": self._runs.take(), "made_with": self._made_with.take(),
            "fused_source": self._beside.take(), "more_fused_count": self._more_beside_counts.take(),
            "rebinding": self._rebinding.take(), "trace": self._trace.take(), "cache": self._cache.take(),
            "found": self._found, "announced_key": self._announced.take(),
        }  # fmt: skip
        # An empty column costs as much as one with an entry.
        return pb.GrantBody(**{name: column for name, column in columns.items() if column})

    def _enter_queue(self, queue: FunctionQueue) -> None:
        index = self._function_of.get(queue.id)
        if index is None:
            index = self._function_of[queue.id] = len(self._function_of)
            self._functions.append(function_message(queue.function))
        self._last_queue, self._lane_index = queue, index

    def _enter_rebinding(self, rebinding: RebindingRow) -> int:
        """Return 1 + the index of a rebinding among the rebindings of the grant."""
        place = self._rebinding_of.get(rebinding.id)
        if place is None:
            place = self._rebinding_of[rebinding.id] = 1 + len(self._rebinding_of)
            self._rebindings.append(pb.SignedRebinding.FromString(rebinding.signed))
            self._size += len(rebinding.signed)
        return place

    def _enter_instance(self, instance: Instance) -> None:
        index = self._instance_of.get(instance.id)
        if index is None:
            index = self._instance_of[instance.id] = len(self._instance_of)
            self._instances.append(instance.id)
        self._last_instance, self._instance_index = instance, index
