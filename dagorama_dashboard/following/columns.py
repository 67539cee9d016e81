"""The nodes of one instance as columns: kept by the broker's keys, and told to the browser by ordinals.

The rule: what is told to the browser is bounded, and indices of functions and workers never change.
"""

from __future__ import annotations

from base64 import b64encode
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

from dagorama.api import broker_pb2 as pb
from dagorama_dashboard.shown.formats import function_label

#: Nodes of an instance that are told at most.
MOST_NODES = 200_000


class Shifted(Exception):
    """Nodes were put before known ones, because a large call was accepted meanwhile: their ordinals have changed."""


class Columns:
    """The known nodes of an instance. A node's place is its ordinal minus 1."""

    def __init__(self, created: float) -> None:
        self.created = created  #: seconds since 1970, of the instance
        self.nodes = 0  #: of the instance
        self.last = 0  #: key of the last node that is known
        self._functions: dict[str, int] = {}
        self._workers: dict[str, int] = {}
        self._block_keys: list[int] = []  # of the first node of each block
        self._block_places: list[int] = []
        self._blocks: list[tuple[int, int, int]] = []  # first place, creator's key, milliseconds
        self.state = bytearray()
        self._function: list[int] = []
        self._worker: list[int] = []
        self._attempts: list[int] = []
        self._ended: list[int] = []
        self._run: list[int] = []
        self._running: dict[int, int] = {}  # by key: start in milliseconds
        self._source_count: list[int] = []
        self._sources: list[int] = []  # keys

    @property
    def count(self) -> int:
        """Nodes that are known."""
        return len(self.state)

    def add(self, message: pb.NodeMap) -> None:
        """Add the next nodes. Raises Shifted if they do not continue the known ones."""
        if message.before != self.count:
            raise Shifted
        self.nodes = max(self.nodes, message.nodes)
        functions = [self._functions.setdefault(name, len(self._functions)) for name in message.functions]
        workers = [0, *(1 + self._workers.setdefault(name, len(self._workers)) for name in message.workers)]
        place = self.count
        for key, size, creator, created in zip(
            message.block_key, message.block_size, message.block_creator, message.block_created, strict=True
        ):
            self._block_keys.append(key)
            self._block_places.append(place)
            self._blocks.append((place, creator, self._milliseconds(created)))
            place += size
        self.state += message.state
        self._function += [functions[index] for index in message.function]
        self._worker += [workers[index] for index in message.worker]
        self._attempts += message.failed_attempts
        self._ended += [max(1, self._milliseconds(ended)) if ended else 0 for ended in message.ended]
        self._run += message.microseconds
        self._source_count += message.source_count
        self._sources += message.source
        for key, moment in zip(message.returned_key, message.returned_at, strict=True):
            returned = self.ordinal(key) - 1
            if returned >= 0 and self._ended[returned]:  # its value came later, from the nodes that it returned
                self._ended[returned] = max(1, self._milliseconds(moment))
        self._running.update(
            (key, self._milliseconds(since))
            for key, since in zip(message.running_key, message.running_since, strict=True)
        )
        self.last = max(self.last, message.last)

    def _milliseconds(self, moment: float) -> int:
        return round((moment - self.created) * 1000)

    def ordinal(self, key: int) -> int:
        """Return the ordinal of a node; 0: it is not known."""
        block = bisect_right(self._block_keys, key) - 1
        if block < 0:
            return 0
        place = self._block_places[block] + key - self._block_keys[block]
        end = self._block_places[block + 1] if block + 1 < len(self._block_places) else self.count
        return place + 1 if place < end else 0

    def change(self, keys: Sequence[int], states: bytes) -> tuple[list[int], bytearray]:
        """Note new states; return the ordinals and states of nodes whose state is another one than before."""
        ordinals, changed = [], bytearray()
        for key, state in zip(keys, states, strict=True):
            ordinal = self.ordinal(key)
            if ordinal and self.state[ordinal - 1] != state:
                self.state[ordinal - 1] = state
                ordinals.append(ordinal)
                changed.append(state)
        return ordinals, changed

    def edges(self) -> dict[tuple[str, str, str], int]:
        """Return how often nodes of one function take values of another, or create its nodes: by names and kind."""
        function, counts = self._function, Counter[tuple[int, int]]()
        targets = chain.from_iterable(map(repeat, function, self._source_count))
        known = self._ordinals(self._sources)
        counts.update(
            (function[ordinal - 1], target) for ordinal, target in zip(known, targets, strict=False) if ordinal
        )
        created = Counter[tuple[int, int]]()
        for index, (place, creator, _) in enumerate(self._blocks):
            ordinal = self.ordinal(creator) if creator else 0
            if ordinal:
                of_block = Counter(function[place : self._end(index)])
                created.update({(function[ordinal - 1], target): count for target, count in of_block.items()})
        names = list(self._functions)
        return {
            (names[source], names[target], kind): count
            for kind, found in (("value", counts), ("created", created))
            for (source, target), count in found.items()
        }

    def data(self, after: int = 0) -> dict[str, Any]:
        """Return what the browser gets of the nodes after an ordinal."""
        first = bisect_right(self._block_places, after) - 1
        blocks = [
            [place + 1, self._end(index) - place, self.ordinal(creator) if creator else 0, created]
            for index, (place, creator, created) in enumerate(self._blocks[max(0, first) :], max(0, first))
        ]
        start = sum(self._source_count[:after])
        return {
            "created": self.created, "nodes": self.nodes, "after": after, "count": self.count - after,
            "functions": [function_label(name) for name in self._functions], "workers": list(self._workers),
            "function_names": list(self._functions),
            "state": b64encode(self.state[after:]).decode(), "function": self._function[after:],
            "worker": self._worker[after:], "attempts": self._attempts[after:], "ended": self._ended[after:],
            "run": self._run[after:], "blocks": blocks,
            "running": [[ordinal, since] for key, since in self._running.items() if (ordinal := self.ordinal(key))],
            "sources": {
                "count": self._source_count[after:],
                "ordinal": list(self._ordinals(self._sources[start:])),
            },
        }  # fmt: skip

    def _end(self, block: int) -> int:
        return self._block_places[block + 1] if block + 1 < len(self._block_places) else self.count

    def _ordinals(self, keys: Iterable[int]) -> Iterable[int]:
        return map(self.ordinal, keys)
