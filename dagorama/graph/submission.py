"""What a spawner makes, on its way to the broker: each instance or call at once, or many together.

The rule: whoever returns from here has it durable, unless a `together()` block holds it back until its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dagorama.client.connection import connection
from dagorama.graph.node_batch import NodesRun, submit_requests


class _Gathered:
    """What the block has made so far. Threads and tasks that it starts with its context add to it as well."""

    __slots__ = ("over", "runs")

    def __init__(self) -> None:
        self.runs: list[NodesRun] = []
        self.over = False


_gathered: ContextVar[_Gathered | None] = ContextVar("dagorama_gathered", default=None)


@contextmanager
def together() -> Iterator[None]:
    """Instances and calls that the block makes become known in one call, and in one transaction, when it ends.

    A thousand small instances are made several times as fast so. Until the end nothing of them runs, and nothing can be
    asked of them; a block that raises has made nothing, and what it made is of no use then. One block inside another is
    part of that one.
    """
    if _open() is not None:
        yield
        return
    gathered = _Gathered()
    token = _gathered.set(gathered)
    try:
        yield
        _gathered.reset(token)
        if gathered.runs:
            connection().submit(submit_requests(gathered.runs))
    finally:
        gathered.over = True
        if _gathered.get() is gathered:
            _gathered.reset(token)


def submit(run: NodesRun) -> None:
    """Hands a run to the broker; returns when it is durable, or when a `together()` block has taken it."""
    gathered = _open()
    if gathered is None:
        connection().submit(submit_requests([run]))
    else:
        gathered.runs.append(run)


def is_held_back(instance: bytes) -> bool:
    """Whether the instance was made in a `together()` block that has not ended."""
    gathered = _open()
    return gathered is not None and any(run.instance == instance for run in gathered.runs)


def _open() -> _Gathered | None:
    gathered = _gathered.get()
    return None if gathered is None or gathered.over else gathered
