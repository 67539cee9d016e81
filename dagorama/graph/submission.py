"""Submit the instances and calls of a client, each at once or many together.

The rule: when a function here returns, its nodes are durable, or a `batch()` block holds them back until its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dagorama.api import broker_pb2
from dagorama.client.connection import connection
from dagorama.client.large_values import broker_values
from dagorama.context import batch_here, current_batch
from dagorama.errors import NotFound
from dagorama.graph.node_batch import NodeBatch, submit_requests
from dagorama.graph.start_options import Started
from dagorama.settings import traces


class Batch:
    """The nodes that a block has made so far. Threads and tasks that it starts with its context add to them."""

    __slots__ = ("over", "runs", "started")

    def __init__(self) -> None:
        self.runs: list[NodeBatch] = []
        self.started: Started = {}
        self.over = False

    def has_instance(self, instance: bytes) -> bool:
        return any(run.instance == instance for run in self.runs)


@contextmanager
def batch() -> Iterator[None]:
    """Submit all instances and calls of the block in one call and one transaction, when it ends.

    This is several times as fast for a thousand small instances. Before the end, none of the nodes runs, and the broker
    does not know them. If the block raises, nothing is submitted. A nested block belongs to the outer one. In a node a
    block has no effect: all that the node creates is submitted with its result, unless the node fails.
    """
    if batch_here() is not None:
        yield
        return
    batch = Batch()
    token = current_batch.set(batch)
    try:
        yield
        current_batch.reset(token)
        if batch.runs:
            _send(batch.runs)
    finally:
        batch.over = True
        if current_batch.get() is batch:
            current_batch.reset(token)


def submit(run: NodeBatch) -> None:
    """Submit nodes; return when they are durable, or when a `batch()` block has taken them."""
    batch = batch_here()
    if batch is None:
        _send([run])
    else:
        assert isinstance(batch, Batch)
        batch.runs.append(run)


def _send(runs: list[NodeBatch]) -> None:
    if not traces():
        _submit(submit_requests(runs))
        return
    from dagorama.graph.tracing import sending

    with sending(runs):
        _submit(submit_requests(runs))


def _submit(requests: list[broker_pb2.SubmitRequest]) -> None:
    try:
        connection().submit(requests)
    except NotFound:
        large = [digest for request in requests for nodes in request.nodes for digest in nodes.large]
        if not large or not broker_values().send_left(large):
            raise
        connection().submit(requests)
