"""The columns of one Results message, gathered until it is sent."""

from __future__ import annotations

from collections.abc import Sequence

from dagorama.api import broker_pb2 as pb
from dagorama.graph.cache import CachedRun
from dagorama.graph.node_batch import FunctionTable, references
from dagorama.worker.frames import Outcome


class Piece:
    """The columns of one Results message."""

    __slots__ = (
        "attempt", "cache_key", "cache_proof", "cached", "children", "failures", "foreign", "functions", "hits",
        "large", "large_of", "logs", "microseconds", "node", "of_children", "ref", "ref_count", "reports", "size",
        "trace", "trace_of", "value",
    )  # fmt: skip

    def __init__(self) -> None:
        self.node: list[int] = []
        self.attempt: list[int] = []
        self.value: list[bytes] = []
        self.microseconds: list[int] = []
        self.ref_count: list[int] = []
        self.ref: list[int] = []
        self.foreign: list[bytes] = []
        self.large: list[bytes] = []
        self.large_of: list[int] = []
        self.trace: list[str] = []
        self.trace_of: list[int] = []
        self.cached: list[int] = []
        self.cache_key: list[bytes] = []
        self.cache_proof: list[bytes] = []
        self.hits: list[int] = []
        self.functions = FunctionTable()
        self.children: list[pb.Children] = []
        self.of_children: list[bytes] = []  # large values in the arguments of the child nodes
        self.failures: list[pb.Failure] = []
        self.logs: list[pb.NodeLog] = []
        self.reports: list[pb.NodeReport] = []
        self.size = 0

    def name_references(self, refs: Sequence[bytes], origin: bytes) -> None:
        """Add the promises in the last value. `origin` is the origin of the nodes that its attempt has made."""
        numbers, foreign = references(origin, refs)
        # `foreign` is one list for the whole message.
        self.ref += [number if number >= 0 else number - len(self.foreign) for number in numbers]
        self.foreign += foreign
        self.ref_count += [0] * (len(self.node) - 1 - len(self.ref_count))
        self.ref_count.append(len(refs))

    def add_cached(self, run: CachedRun) -> None:
        """Say of the last value that it must be cached, or that it was found in the cache."""
        if run.is_hit:
            self.hits.append(len(self.node) - 1)
            return
        self.cached.append(len(self.node) - 1)
        self.cache_key.append(run.key)
        self.cache_proof.append(run.proof)
        self.size += len(run.key) + len(run.proof)

    def outcome(self) -> Outcome:
        """Return the message, its attempts, and its large values."""
        if self.ref_count:
            self.ref_count += [0] * (len(self.node) - len(self.ref_count))
        body = pb.Results(
            node=self.node,
            attempt=self.attempt,
            value=self.value,
            microseconds=self.microseconds,
            ref_count=self.ref_count,
            ref=self.ref,
            foreign=self.foreign,
            functions=self.functions.functions,
            children=self.children,
            failures=self.failures,
            large=self.large,
            large_of=self.large_of,
            logs=self.logs,
            reports=self.reports,
            trace=self.trace,
            trace_of=self.trace_of,
            cached=self.cached,
            cache_key=self.cache_key,
            cache_proof=self.cache_proof,
            hits=self.hits,
        )
        attempts = self.attempt + [failure.attempt for failure in self.failures]
        large = list(dict.fromkeys(self.of_children + self.large))
        return Outcome(attempts, large, body.SerializeToString())
