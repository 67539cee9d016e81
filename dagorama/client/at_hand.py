"""Values that are at hand: the one of the promise that as_completed() has just yielded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagorama.client.waiter import NodeResult
from dagorama.models.promise import DAGPromise
from dagorama.models.state import State

_answers: dict[bytes, NodeResult] = {}


@contextmanager
def at_hand(heard: NodeResult) -> Iterator[None]:
    """Keep a value for resolve() while the caller handles its promise; not a failure, which a retry may undo."""
    if heard.state is not State.COMPLETED:
        yield
        return
    _answers[heard.node_id] = heard
    try:
        yield
    finally:
        _answers.pop(heard.node_id, None)


def known(promise: DAGPromise[Any]) -> NodeResult | None:
    """Return the report of the node of a promise, if it is at hand."""
    return _answers.get(promise.node_id)
