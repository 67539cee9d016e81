"""Work of a broker for a PostgreSQL store, and the ledger of what it sent and what was acknowledged.

A node's key and its value name the epochs in which they were made, so that rows tell who wrote them.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dagorama_broker.model.domain import State
from dagorama_broker.model.rows import Changes, InstanceRow, NodeBlockRow, NodeRow, OutcomeRow, ProgressRow
from dagorama_broker.store.postgres.store import PostgresStore

#: Bits of a node's key below its epoch, and bits of an attempt below it.
KEY_BITS, EPOCH_BITS = 24, 40
#: Nodes of a submission. The largest go by COPY, in a transaction of several statements.
SIZES = (1,) * 12 + (2, 5, 20, 300)
#: Unfinished nodes from which outcomes are all that is committed.
MANY = 600


class Intent(NamedTuple):
    """The rows of one commit."""

    epoch: int
    number: int  #: of the commit in its epoch, from 1
    first: int  #: key of the first new node
    nodes: int
    ended: list[int]
    counted: list[int]  #: keys of nodes that had a failed attempt


def value_of(key: int, epoch: int) -> bytes:
    return b"value of %d in epoch %d" % (key, epoch)


def arguments_of(key: int) -> bytes:
    return b"arguments of %d" % key


def count_of(intent: Intent) -> int:
    """The number of failed attempts that this commit writes, and no other one."""
    return (intent.epoch << KEY_BITS) + intent.number


class Ledger:
    """A file that is appended to by single writes, one for each line."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, kind: str, *what: object) -> None:
        os.write(self._file, json.dumps([kind, *what]).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def lines_of(file: Path) -> Iterator[tuple[str, list[object]]]:
    """Yield the lines of a ledger, in order."""
    *whole, _ = file.read_bytes().split(b"\n")  # a process that was killed may have begun another one
    for line in whole:
        kind, *what = json.loads(line)
        yield kind, what


class Workload:
    """A broker without clients and workers: it makes nodes, and ends them and the nodes that it has found."""

    def __init__(self, store: PostgresStore, epoch: int, ledger: Ledger, chance: random.Random) -> None:
        self.acknowledged = 0
        self.is_over = False
        self._store = store
        self._epoch = epoch
        self._ledger = ledger
        self._chance = chance
        self._next = epoch << KEY_BITS
        self._unfinished = [node.key for node in store.live().nodes]
        ledger.write("took", epoch, self._unfinished)

    def commit(self) -> None:
        """Commit something. Raise StoreError if the store does."""
        intent = self._draw()
        changes = self._changes(intent)
        self._ledger.write("meant", *intent)
        self._store.commit(changes)
        self.acknowledged += 1
        self._ledger.write("durable", self._epoch, intent.number, time.monotonic())
        self._next += intent.nodes
        ended = set(intent.ended)
        self._unfinished = [key for key in self._unfinished if key not in ended]
        self._unfinished += range(intent.first, intent.first + intent.nodes)

    def _draw(self) -> Intent:
        draw, size = self._chance.random(), self._chance.choice(SIZES)
        few = self._chance.sample(self._unfinished, min(size, len(self._unfinished)))
        number, first = self.acknowledged + 1, self._next
        if not few or (draw < 0.4 and len(self._unfinished) < MANY):
            return Intent(self._epoch, number, first, size, [], [])
        if draw < 0.6:  # the value of a node, and what it has made
            return Intent(self._epoch, number, first, 2, few[:1], [])
        if draw < 0.7:
            return Intent(self._epoch, number, first, 0, [], few[:1])
        return Intent(self._epoch, number, first, 0, few, [])

    def _changes(self, intent: Intent) -> Changes:
        keys = range(intent.first, intent.first + intent.nodes)
        changes = Changes(
            nodes=[NodeRow(key, self._epoch, 1, b"", arguments_of(key)) for key in keys],
            outcomes=[self._outcome(key, intent.number) for key in intent.ended],
            progress=[ProgressRow(key, count_of(intent), 0, 0, 0.0, b"failed") for key in intent.counted],
        )
        if intent.number == 1:
            id = self._epoch.to_bytes(16, "big")
            changes.instances = [InstanceRow(self._epoch, id, "work:Work", b"", 1700000000.5)]
        if keys:
            origin, counter = self._epoch.to_bytes(12, "big"), intent.first & ((1 << KEY_BITS) - 1)
            changes.blocks = [NodeBlockRow(origin, counter, len(keys), keys[0], self._epoch, b"digest", 0, 1)]
        return changes

    def _outcome(self, key: int, number: int) -> OutcomeRow:
        attempt = (self._epoch << EPOCH_BITS) + number
        return OutcomeRow(
            key, State.COMPLETED, attempt, b"", value_of(key, self._epoch), 0, None, 1700000001.25, 250, 1
        )
