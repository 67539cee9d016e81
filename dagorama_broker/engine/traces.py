"""Keeps the trace contexts of attempts whose values other nodes may use, so that their spans can link to them.

The rule: they are for people, so only the latest are kept, in memory, and a restart loses them. The context by which
the span of a node finds its parent is stored with the block of the node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dagorama_broker.scheduler import Node

#: Attempts whose trace contexts are kept, a few hundred bytes each.
MOST = 50_000
#: Sources of one node that its span links to; OpenTelemetry's own limit is the same.
MOST_LINKS = 128


class AttemptTraces:
    """The trace contexts of the latest traced attempts, by the keys of their nodes."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._traces: dict[int, str] = {}

    def keep(self, key: int, trace: str) -> None:
        """Keep the trace context of a node's attempt; it replaces the context of an earlier attempt."""
        self._traces.pop(key, None)
        self._traces[key] = trace
        if len(self._traces) > self._most:
            del self._traces[next(iter(self._traces))]

    def of(self, nodes: Iterable[Node]) -> Iterator[tuple[int, str]]:
        """Yield the keys and trace contexts of nodes that have one, as far as they are kept, at most `MOST_LINKS`."""
        left = MOST_LINKS
        for node in nodes:
            if (trace := self._traces.get(node.key)) is not None:
                yield node.key, trace
                left -= 1
                if not left:
                    return
