"""The tables of a store in memory, and what commits and removals change in them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from dagorama_broker.errors import StoreError
from dagorama_broker.model.actions import MOST_ACTIONS, ActionRow
from dagorama_broker.model.delays import NodeDelay
from dagorama_broker.model.domain import State, unpack_keys
from dagorama_broker.model.hooks import HookRow
from dagorama_broker.model.key_pauses import KeyPauseRow, PausedKey
from dagorama_broker.model.queries import EndedNode, StoredInstance
from dagorama_broker.model.rows import (
    CachedRow,
    Changes,
    DraftRow,
    FunctionRow,
    InstanceEnd,
    NodeBlockRow,
    NodeRow,
    OutcomeRow,
    PausedQueueRow,
    ProgressRow,
    RemovedRow,
    ResolvedRow,
    RetriedRow,
)
from dagorama_broker.model.schedules import ScheduleRow
from dagorama_broker.store.memory.blocks import Blocks
from dagorama_broker.store.memory.eager import EagerAttempts
from dagorama_broker.store.memory.large_values import LargeValues
from dagorama_broker.store.memory.mail import MemoryMail
from dagorama_broker.store.memory.marks import Marks
from dagorama_broker.store.memory.rebinds import Rebinds
from dagorama_broker.store.memory.retention import MemoryRetention
from dagorama_broker.store.protocol import REMEMBERED


class Tables:
    """All records, by their keys."""

    def __init__(self) -> None:
        self.functions: dict[int, FunctionRow] = {}
        self.instances: dict[int, StoredInstance] = {}
        self.instance_keys: dict[bytes, int] = {}
        self.marks = Marks()
        self.blocks = Blocks()
        self.nodes: dict[int, NodeRow] = {}
        self.outcomes: dict[int, OutcomeRow] = {}
        self.progress: dict[int, ProgressRow] = {}
        self.concurrency_keys: dict[int, str] = {}
        self.delays: dict[int, NodeDelay] = {}
        self.cached: dict[bytes, CachedRow] = {}
        self.large = LargeValues()
        self.mail = MemoryMail()
        self.eager = EagerAttempts()
        self.rebinds = Rebinds()
        self.traces: dict[int, str] = {}  #: of blocks, by their first keys
        self.used_failures: dict[int, int] = {}  #: instance by node
        self.retention = MemoryRetention()
        self.workers: dict[bytes, str] = {}
        self.worker_names: dict[int, str] = {}
        self.paused: dict[str, PausedQueueRow] = {}
        self.key_pauses: dict[PausedKey, KeyPauseRow] = {}
        self.schedules: dict[str, ScheduleRow] = {}
        self.hooks: dict[int, HookRow] = {}  #: by the keys of their instances
        self.drafts: dict[int, DraftRow] = {}  #: by their first keys
        self.actions: dict[int, ActionRow] = {}  #: by number
        self.last_action = 0
        #: largest keys of rows that were deleted
        self.last_function = self.last_instance = self.last_node = 0

    # --- queries ----------------------------------------------------------------------------------

    def has_ended(self, key: int) -> bool:
        """Return whether a node has an outcome and is not RESOLVING."""
        outcome = self.outcomes.get(key)
        return outcome is not None and outcome.state != State.RESOLVING

    def ended(self, key: int) -> EndedNode:
        """Return a node that has an outcome."""
        node, outcome = self.nodes[key], self.outcomes[key]
        return EndedNode(
            key, node.instance, node.function, outcome.state, outcome.refs, outcome.root_cause, outcome.attempt
        )

    def ended_and_named(self, keys: Iterable[int]) -> list[EndedNode]:
        """Return the nodes that have an outcome, the nodes that their values refer to, and so on."""
        wanted = set(keys)
        found: dict[int, EndedNode] = {}
        while wanted:
            fresh = [self.ended(key) for key in wanted if key in self.outcomes]
            found.update((node.key, node) for node in fresh)
            wanted = {key for node in fresh for key in unpack_keys(node.refs)} - found.keys()
        return [found[key] for key in sorted(found)]

    # --- commits ----------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> None:
        """Write the changes. Raise StoreError, and change nothing, if a row is there that may exist only once."""
        self._refuse_repeats(changes)
        self.functions.update((row.id, row) for row in changes.functions)
        for instance in changes.instances:
            self.instances[instance.key] = StoredInstance(instance, None, False)
            self.instance_keys[instance.id] = instance.key
        self.marks.add(changes.names, changes.labels)
        self.marks.add_turns(changes.turns)
        for end in changes.instance_ends:
            self._end_instance(end)
        for block in changes.blocks:
            self.blocks.add(block)
        self._revive(changes.retried)
        self.nodes.update((node.key, node) for node in changes.nodes)
        self.outcomes.update((outcome.key, outcome) for outcome in changes.outcomes)
        for resolved in changes.resolved:
            self._resolve(resolved)
        self.progress.update((progress.key, progress) for progress in changes.progress)
        self._write_the_rare(changes)
        self._delete(changes)

    def _write_the_rare(self, changes: Changes) -> None:
        for large in changes.large:
            self.large.refer(large)
        self.concurrency_keys.update(changes.keys)
        self.delays.update((row.key, NodeDelay(row.seconds, row.until)) for row in changes.delays)
        self.mail.write(changes)
        for eager_attempt in changes.eager_attempts:
            self.eager.put(eager_attempt)
        self.eager.creators.update(changes.eager_blocks)
        self.traces.update(changes.traces)
        self.rebinds.rebindings.update((row.id, row) for row in changes.rebindings)
        for rebound in changes.rebound:
            self.rebinds.rebind(rebound)
        self.used_failures.update(changes.used_failures)
        self.workers.update(changes.workers_joined)
        for worker in changes.workers_left:
            self.workers.pop(worker, None)
        for what in changes.key_pauses_over:
            self.key_pauses.pop(what, None)
        self.key_pauses.update((row.paused, row) for row in changes.key_pauses)
        for queue in changes.resumed:
            self.paused.pop(queue, None)
        self.paused.update((row.queue, row) for row in changes.paused)
        for name in changes.schedules_gone:
            self.schedules.pop(name, None)
        self.schedules.update((row.name, row) for row in changes.schedules)
        self.hooks.update((row.instance, row) for row in changes.hooks)
        self.worker_names.update(changes.worker_names)
        while len(self.worker_names) > REMEMBERED:
            del self.worker_names[next(iter(self.worker_names))]
        for action in changes.actions:
            self._add_action(action)
        self.retention.link(changes.links)
        for key in changes.uncached:
            self.cached.pop(key, None)
        self.cached.update((row.key, row) for row in changes.cached)

    def _add_action(self, action: ActionRow) -> None:
        if not action.target and (key := self.instance_keys.get(action.instance)) is not None:
            action = action._replace(target=self.instances[key].row.definition)
        self.last_action += 1
        self.actions[self.last_action] = action
        self.actions.pop(self.last_action - MOST_ACTIONS, None)

    def _delete(self, changes: Changes) -> None:
        if changes.removed:
            self._remove(changes.removed)
        for function in changes.functions_gone:
            del self.functions[function]
            self.last_function = max(self.last_function, function)
        self.drafts.update((draft.first_key, draft) for draft in changes.drafts)
        for nodes in changes.given_up:
            self._give_up(nodes)
        for key in changes.drafts_over:
            del self.drafts[key]

    def _refuse_repeats(self, changes: Changes) -> None:
        """Raise StoreError if a row would be written a second time, above all a second result of a node."""
        _refuse("functions", [row.id for row in changes.functions], self.functions.__contains__)
        _refuse("instances", [row.key for row in changes.instances], self.instances.__contains__)
        _refuse("instances", [row.id for row in changes.instances], self.instance_keys.__contains__)
        self.marks.refuse_repeats(changes.names)
        _refuse(
            "node_blocks",
            [(row.origin, row.first) for row in changes.blocks],
            lambda block: self.blocks.contains(*block),
        )
        _refuse("nodes", [row.key for row in changes.nodes], self.nodes.__contains__)
        _refuse("eager_blocks", [row.first_key for row in changes.eager_blocks], self.eager.creators.__contains__)
        revived = {row.key for row in changes.retried}
        if any(not self.has_ended(key) for key in revived):
            raise StoreError("a node that is retried has not ended")
        for table, rows, is_there in (
            ("outcomes", changes.outcomes, self.outcomes.__contains__),
            ("resolved", changes.resolved, self.has_ended),
        ):
            _refuse(table, [row.key for row in rows if row.key not in revived], is_there)

    def _end_instance(self, end: InstanceEnd) -> None:
        stored = self.instances[end.key]
        self.instances[end.key] = StoredInstance(stored.row, end.ended, end.failed)
        self.retention.end(end)

    def _resolve(self, resolved: ResolvedRow) -> None:
        outcome = self.outcomes[resolved.key]
        self.outcomes[resolved.key] = outcome._replace(
            state=resolved.state, root_cause=resolved.root_cause, ended=resolved.ended, returned=outcome.ended
        )

    def _revive(self, revived: Iterable[RetriedRow]) -> None:
        for row in revived:
            if row.state == State.RESOLVING:
                outcome = self.outcomes[row.key]
                returned = outcome.returned or outcome.ended
                self.outcomes[row.key] = outcome._replace(state=row.state, root_cause=0, ended=returned, returned=0.0)
            else:
                del self.outcomes[row.key]
                self.used_failures.pop(row.key, None)

    def clear_drafts(self) -> None:
        """Delete nodes of calls that an earlier broker left undecided."""
        for draft in self.drafts.values():
            self._give_up(draft)
        self.drafts.clear()

    def _give_up(self, nodes: DraftRow) -> None:
        self.last_node = max(self.last_node, nodes.last_key)
        for key in range(nodes.first_key, nodes.last_key + 1):
            self.nodes.pop(key, None)
            self.concurrency_keys.pop(key, None)
            self.delays.pop(key, None)
            self.mail.waits.pop(key, None)
            self.rebinds.delete(key)

    # --- removal ----------------------------------------------------------------------------------

    def _remove(self, rows: Sequence[RemovedRow]) -> None:
        for row in rows:
            self.marks.remove(row.key, self.instances[row.key].row.definition)
            self.mail.remove(row.key)
            del self.instances[row.key], self.instance_keys[row.id]
            self.hooks.pop(row.key, None)
            self.last_instance = max(self.last_instance, row.key)
        self.retention.remove(rows)

    def sweep(self, most: int) -> bool:
        """Delete up to `most` nodes of removed instances; return whether more may be left."""
        swept: list[NodeBlockRow] = []
        while most > 0 and (instance := self.retention.leftover()) is not None:
            block = self.blocks.last_of(instance)
            if block is None:
                self.retention.is_swept(instance)
                most -= 1
            else:
                most -= self._sweep_run(block, most, swept)
        self.blocks.delete(swept)
        return self.retention.leftover() is not None

    def _sweep_run(self, block: NodeBlockRow, most: int, swept: list[NodeBlockRow]) -> int:
        """Delete up to `most` nodes of a block, from its end, and the block with its first node; return the cost.

        A deleted run is added to `swept` and still in `runs.in_order`.
        """
        left = max(block.size - most, 0)
        for key in range(block.first_key + left, block.first_key + block.size):
            self._delete_node(key)
        self.last_node = max(self.last_node, block.first_key + block.size - 1)
        if left:
            self.blocks.shorten(block, left)
        else:
            self.blocks.release(block)
            self.eager.creators.pop(block.first_key, None)
            self.traces.pop(block.first_key, None)
            swept.append(block)
        return block.size - left + 1

    def _delete_node(self, key: int) -> None:
        by_node = self.nodes, self.outcomes, self.progress, self.concurrency_keys, self.delays, self.used_failures
        for table in by_node:
            table.pop(key, None)
        self.eager.delete_of(key)
        self.rebinds.delete(key)
        self.mail.waits.pop(key, None)
        self.large.delete_of(key)


def _refuse(table: str, keys: Sequence[Hashable], is_there: Callable[[Any], bool]) -> None:
    if len(set(keys)) != len(keys) or any(map(is_there, keys)):
        raise StoreError(f"table {table} already has a row with this key")
