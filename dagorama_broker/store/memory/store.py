"""A store in this process's memory: the same records and answers as other stores, lost when the process ends."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from itertools import islice
from typing import TypeVar

from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import EagerState
from dagorama_broker.model.hooks import HookRow
from dagorama_broker.model.queries import (
    EdgesPage,
    EndedNode,
    Failed,
    FailedEnd,
    FoundNode,
    FunctionCount,
    InstanceMarks,
    InstanceQuery,
    ListedInstances,
    Live,
    LiveNode,
    StoredInstance,
    StoredNode,
)
from dagorama_broker.model.rows import Changes, NodeRow, OutcomeRow
from dagorama_broker.model.signals import WaitRow
from dagorama_broker.store.checksums import unpack_sources
from dagorama_broker.store.memory.aggregates import Aggregates
from dagorama_broker.store.memory.known import KnownFacts
from dagorama_broker.store.memory.maps import Maps
from dagorama_broker.store.memory.retry import read_bad_ends, read_eager_states, read_edges, read_failed
from dagorama_broker.store.memory.search import failed_with, matches
from dagorama_broker.store.memory.tables import Tables
from dagorama_broker.store.memory.values import ValueMethods
from dagorama_broker.store.protocol import SECRET_BYTES, Unshared

_Row = TypeVar("_Row")


class MemoryStore(Unshared, KnownFacts, Aggregates, Maps, ValueMethods):
    """A `Store` whose records live as long as this object; close() and open() keep them, like a restart elsewhere."""

    near = is_the_store = True
    last_used = 0.0  # no earlier broker can have used it

    def __init__(self) -> None:
        self.secret = os.urandom(SECRET_BYTES)  #: see `Store`
        self.logs_path = None
        self.tables = Tables()
        self._epoch = 0

    def __repr__(self) -> str:
        return "memory"

    def open(self) -> None:
        """Do nothing: it is in this process."""

    def take(self) -> int:
        self._epoch += 1
        self.tables.clear_drafts()
        return self._epoch

    def close(self) -> None:
        """Do nothing: only memory is held."""

    def usage(self) -> None:
        """Return None: there are no files."""

    def size(self) -> int:
        return 0

    # --- writing ----------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> None:
        self.tables.commit(changes)

    def sweep(self, most: int) -> bool:
        return self.tables.sweep(most)

    # --- what a start and a retry read --------------------------------------------------------------

    def live(self) -> Live:
        tables = self.tables
        nodes = [
            LiveNode(node.key, node.instance, node.function, node.sources)
            for node in sorted(tables.nodes.values())
            if not tables.has_ended(node.key)
        ]
        unfinished = {node.instance for node in nodes}
        keys = [node.key for node in nodes]
        return Live(
            functions=list(tables.functions.values()),
            instances=[tables.instances[key].row for key in sorted(unfinished)],
            blocks=[block for block in tables.blocks if block.instance in unfinished],
            nodes=nodes,
            ended=self.ended([key for node in nodes for key in (node.key, *unpack_sources(node.sources))]),
            progress=[tables.progress[key] for key in keys if key in tables.progress],
            keys={key: tables.concurrency_keys[key] for key in keys if key in tables.concurrency_keys},
            delays={key: tables.delays[key] for key in keys if key in tables.delays},
            rebound=tables.rebinds.functions_of(keys),
            workers=list(tables.workers.items()),
            failed={key for key in unfinished if tables.instances[key].failed},
            next_node=max(max(tables.nodes, default=0), tables.last_node) + 1,
            next_instance=max(max(tables.instances, default=0), tables.last_instance) + 1,
            next_function=max(tables.last_function, *tables.functions, 0) + 1,
            eager_attempts=tables.eager.live(),
            eager_blocks=[(attempt, tables.blocks.of(key)) for attempt, key in tables.eager.live_blocks()],
            rebindings=tables.rebinds.rebindings_of(keys),
            next_rebinding=max(tables.rebinds.rebindings, default=0) + 1,
            paused=[tables.paused[queue] for queue in sorted(tables.paused)],
            key_pauses=[tables.key_pauses[what] for what in sorted(tables.key_pauses)],
            next_worker=max(tables.worker_names, default=0) + 1,
            traces=dict(tables.traces),
            turns={key: tables.marks.turns[key] for key in unfinished if key in tables.marks.turns},
            schedules=[tables.schedules[name] for name in sorted(tables.schedules)],
            cached=sorted(tables.cached.values(), key=lambda row: (row.completed, row.key)),
            hooks=self.hooks(unfinished),
            mail=tables.mail.of(unfinished),
            next_signal=max(tables.mail.signals, default=0) + 1,
        )

    def failed(self, root_causes: Sequence[int], more: Collection[int] = (), reruns: Collection[int] = ()) -> Failed:
        return read_failed(self.tables, root_causes, more, reruns)

    def hooks(self, instances: Collection[int]) -> dict[int, HookRow]:
        return {key: self.tables.hooks[key] for key in instances if key in self.tables.hooks}

    def failed_ends(self, instance: int, after: int = 0, limit: int | None = None) -> list[FailedEnd]:
        return read_bad_ends(self.tables, instance, after, limit)

    def eager_states(self, keys: Sequence[int]) -> dict[int, EagerState]:
        return read_eager_states(self.tables, keys)

    def edges(self, instance: int, after: int, limit: int, tolerant: bool) -> EdgesPage:
        return read_edges(self.tables, self.node_keys(instance, after, limit), limit, tolerant)

    def used_failures(self, instance: int) -> list[int]:
        return sorted(key for key, its in self.tables.used_failures.items() if its == instance)

    # --- nodes ------------------------------------------------------------------------------------

    def ended(self, keys: Sequence[int]) -> list[EndedNode]:
        return self.tables.ended_and_named(keys)

    def arguments(self, keys: Sequence[int]) -> dict[int, bytes]:
        return {key: _present(self.tables.nodes.get(key), "arguments", key).arguments for key in keys}

    def values(self, keys: Sequence[int]) -> dict[int, bytes]:
        return {key: self._value(key) for key in keys}

    def _value(self, key: int) -> bytes:
        return _present(_present(self.tables.outcomes.get(key), "value", key).value, "value", key)

    def outcome(self, key: int) -> OutcomeRow | None:
        return self.tables.outcomes.get(key)

    def find(self, ids: Sequence[bytes]) -> dict[bytes, FoundNode]:
        tables, found = self.tables, {}
        for id in ids:
            block = tables.blocks.with_id(id)
            if block is not None and not tables.retention.is_left_over(block.instance):
                key = block.first_key + int.from_bytes(id[12:], "big") - block.first
                node, ended = tables.nodes[key], tables.ended(key) if tables.has_ended(key) else None
                found[id] = FoundNode(id, key, node.instance, node.function, ended, node.sources)
        return found

    def ids(self, keys: Sequence[int]) -> dict[int, bytes]:
        return {key: self.tables.blocks.id_of(key) for key in keys}

    @property
    def view(self) -> MemoryStore:
        return self

    def counts(self, id: bytes) -> tuple[StoredInstance, list[FunctionCount]] | None:
        stored = self.instance(id)
        if stored is None:
            return None
        groups: dict[tuple[int, int | None], list[int]] = {}
        for key in self.tables.blocks.keys_of(stored.row.key):
            outcome = self.tables.outcomes.get(key)
            state = None if outcome is None else outcome.state
            groups.setdefault((self.tables.nodes[key].function, state), []).append(key)
        return stored, [self._count(function, state, keys) for (function, state), keys in groups.items()]

    def _count(self, function: int, state: int | None, keys: list[int]) -> FunctionCount:
        times = [0 if state is None else self.tables.outcomes[key].microseconds for key in keys]
        return FunctionCount(function, state, len(keys), min(keys), sum(map(bool, times)), sum(times), max(times))

    def ends(self, keys: Collection[int]) -> dict[int, float]:
        return {key: self.tables.outcomes[key].ended for key in keys if self.tables.has_ended(key)}

    def worker_names(self, numbers: Collection[int]) -> dict[int, str]:
        return {number: self.tables.worker_names[number] for number in numbers if number in self.tables.worker_names}

    def nodes_between(self, instance: int, low: bytes, high: bytes, most: int) -> list[bytes]:
        ids = map(self.tables.blocks.id_of, self.tables.blocks.keys_of(instance))
        return sorted(id for id in ids if low <= id <= high)[:most]

    def node_keys(self, instance: int, after: int, limit: int) -> list[int]:
        return list(islice((key for key in self.tables.blocks.keys_of(instance) if key > after), limit))

    def described(self, keys: Sequence[int]) -> dict[int, StoredNode]:
        return {key: self._described(_present(self.tables.nodes.get(key), "row", key)) for key in keys}

    def _described(self, node: NodeRow) -> StoredNode:
        tables, key = self.tables, node.key
        outcome = tables.outcomes.get(key)
        if outcome is not None:
            outcome = outcome._replace(value=None, failure=None)
        function = tables.rebinds.functions_of([key]).get(key, node.function)
        progress, block = tables.progress.get(key), tables.blocks.of(key)
        return StoredNode(
            key, function, node.sources, outcome, progress, key in tables.used_failures, block.created, block.creator
        )

    def functions_of(self, after: int, most: int) -> tuple[set[int], int | None]:
        tables, named = self.tables, set[int]()
        for block in tables.blocks.after(after):
            last = min(block.first_key + block.size - 1, max(block.first_key - 1, after) + most)
            keys = range(max(block.first_key, after + 1), last + 1)
            named.update(tables.nodes[key].function for key in keys if key in tables.nodes)  # some may be swept
            named.update(tables.rebinds.functions_of(keys).values())
            most -= len(keys)
            if most <= 0:
                return named, last
        return named, None

    # --- instances --------------------------------------------------------------------------------

    def instance(self, id: bytes) -> StoredInstance | None:
        key = self.tables.instance_keys.get(id)
        if key is None:
            return None
        return self.tables.instances[key]._replace(mail=self.tables.mail.of({key}))

    def waits(self, keys: Collection[int]) -> dict[int, WaitRow]:
        return self.tables.mail.waits_of(keys)

    def marks(self, keys: Collection[int]) -> dict[int, InstanceMarks]:
        return {key: self.tables.marks.of[key] for key in keys if key in self.tables.marks.of}

    def list_instances(self, asked: InstanceQuery) -> ListedInstances:
        older = sorted((key for key in self.tables.instances if key < asked.before), reverse=True)
        found = [self.tables.instances[key] for key in older if matches(self.tables, self.tables.instances[key], asked)]
        page = found[: asked.limit]
        return ListedInstances(page, page[-1].row.key if len(found) > len(page) else 0)

    def count_instances(self, asked: InstanceQuery) -> int:
        return sum(matches(self.tables, stored, asked) for stored in self.tables.instances.values())

    def failed_with(self, instance: int, text: str, after: int, limit: int) -> list[int]:
        return failed_with(self.tables, instance, text, after, limit)

    def instances_between(self, low: bytes, high: bytes, most: int) -> list[bytes]:
        return sorted(id for id in self.tables.instance_keys if low <= id <= high)[:most]

    def size_of(self, instance: int) -> int:
        return sum(block.size for block in self.tables.blocks if block.instance == instance)

    def expired(self, failed: bool, before: float, most: int) -> list[StoredInstance]:
        return [self.tables.instances[key] for key in self.tables.retention.expired(failed, before, most)]

    def named(self, after: int, most: int) -> list[StoredInstance]:
        return [self.tables.instances[key] for key in self.tables.retention.named(after, most)]

    def naming(self, key: int) -> list[StoredInstance]:
        return [self.tables.instances[other] for other in self.tables.retention.naming(key)]


def _present(row: _Row | None, what: str, key: int) -> _Row:
    if row is None:
        raise StoreError(f"the store has no {what} of node {key}")
    return row
