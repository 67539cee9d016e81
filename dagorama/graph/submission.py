"""Submit what a client makes: each instance or call at once, or many together.

The rule: what has returned from here is durable, unless a `together()` block holds it back until its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dagorama.client.connection import connection
from dagorama.context import batch_here, current_batch
from dagorama.graph.node_batch import NodesRun, submit_requests


class _Batch:
    """What the block has made so far. Threads and tasks that it starts with its context add to it as well."""

    __slots__ = ("over", "runs")

    def __init__(self) -> None:
        self.runs: list[NodesRun] = []
        self.over = False

    def has_instance(self, instance: bytes) -> bool:
        return any(run.instance == instance for run in self.runs)


@contextmanager
def together() -> Iterator[None]:
    """Submit all instances and calls that the block makes by one call and in one transaction, when it ends.

    A thousand small instances are submitted several times as fast this way. Until the end nothing of them runs, and
    nothing can be asked of them. If the block raises, nothing of what it made is submitted. A block inside another
    belongs to the outer one.
    """
    if batch_here() is not None:
        yield
        return
    batch = _Batch()
    token = current_batch.set(batch)
    try:
        yield
        current_batch.reset(token)
        if batch.runs:
            connection().submit(submit_requests(batch.runs))
    finally:
        batch.over = True
        if current_batch.get() is batch:
            current_batch.reset(token)


def submit(run: NodesRun) -> None:
    """Submit nodes; return when they are durable, or when a `together()` block has taken them."""
    batch = batch_here()
    if batch is None:
        connection().submit(submit_requests([run]))
    else:
        assert isinstance(batch, _Batch)
        batch.runs.append(run)
