"""Facts about the ends of nodes, for retries, for failure hooks, and for a call that cancels."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from dagorama_broker.model.domain import Failure
from dagorama_broker.model.hooks import told
from dagorama_broker.scheduler.objects import Node
from dagorama_broker.scheduler.transitions import COMPLETED


class RecentFailure(NamedTuple):
    """A node that has just ended."""

    key: int
    instance: int
    root_cause: int  #: 0: it has completed
    needed: frozenset[int]  #: keys of its sources and of the promises in its value


def noticed(node: Node) -> RecentFailure:
    """Return what is noticed of a node that has just ended."""
    needed = frozenset([other.key for other in (*node.sources, *node.refs)])
    return RecentFailure(
        node.key, node.instance.key, 0 if node.state is COMPLETED else (node.root_cause or node).key, needed
    )


def cause_of(root_cause: Node, failures: deque[tuple[int, bytes]]) -> bytes:
    """Return the failure of a node for a hook; `failures` has the last ones, packed, by the keys of their nodes."""
    id = root_cause.block.id_of(root_cause.key) if root_cause.block is not None else b""
    for key, packed in reversed(failures):
        if key == root_cause.key:
            return told(Failure.unpacked(packed), id)
    text = "a node of another instance failed before, whose value was needed; dagorama show says why"
    return told(Failure("", "", text, "", b"", 0), id)


class Tally:
    """Counts the nodes that fail or are cancelled because of a call, over all steps that this takes."""

    __slots__ = ("count", "open")

    def __init__(self) -> None:
        self.count = 0
        self.open = 0  #: ended nodes whose dependents have not all been notified
