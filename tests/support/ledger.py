"""The rows that a store would hold of the scheduler's changes; a row that contradicts another is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from dagorama_broker.model.delays import NodeDelay
from dagorama_broker.model.domain import EagerState, Function, State, unpack_keys
from dagorama_broker.model.hooks import HookRow
from dagorama_broker.model.key_pauses import KeyPauseRow, PausedKey
from dagorama_broker.model.queries import (
    CreatedBlock,
    EndedNode,
    Failed,
    FailedNode,
    Live,
    LiveNode,
    StoredInstance,
    is_made,
)
from dagorama_broker.model.rows import (
    CachedRow,
    Changes,
    DraftRow,
    EagerAttemptRow,
    FunctionRow,
    InstanceEnd,
    InstanceRow,
    LinkRow,
    NodeBlockRow,
    NodeRow,
    OutcomeRow,
    PausedQueueRow,
    ProgressRow,
    RebindingRow,
    ResolvedRow,
    RetriedRow,
    TurnRow,
    UsedFailureRow,
)
from dagorama_broker.store.memory.mail import MemoryMail


class Ledger:
    """Survives the scheduler that writes it; `live` is what the next one reads back."""

    def __init__(self) -> None:
        self.epoch = 0
        self.functions: dict[int, Function] = {}
        self.instances: dict[int, InstanceRow] = {}
        self.turns: dict[int, TurnRow] = {}  #: by instance
        self.keys: dict[int, str] = {}
        self.delays: dict[int, NodeDelay] = {}
        self.mail = MemoryMail()
        self.rebound: dict[int, int] = {}
        self.rebindings: dict[int, RebindingRow] = {}
        self.rebinding_of: dict[int, int] = {}  #: by node; 0: it needs none
        self.ends: dict[int, InstanceEnd] = {}  #: the last one of each instance
        self.links: set[LinkRow] = set()
        self.blocks: list[NodeBlockRow] = []
        self.nodes: dict[int, NodeRow] = {}
        self.outcomes: dict[int, OutcomeRow] = {}
        self.progress: dict[int, ProgressRow] = {}
        self.workers: dict[bytes, str] = {}
        self.worker_names: dict[int, str] = {}
        self.traces: dict[int, str] = {}  #: of blocks, by their first keys
        self.paused: dict[str, PausedQueueRow] = {}
        self.key_pauses: dict[PausedKey, KeyPauseRow] = {}
        self.eager_attempts: dict[int, EagerAttemptRow] = {}  #: by attempt
        self.used_failures: set[int] = set()  #: nodes that were given a failure which was retried since
        self.eager_attempt_of: dict[int, int] = {}  #: attempt by the first key of a block
        self.drafts: dict[int, DraftRow] = {}  #: by first key
        self.cached: dict[bytes, CachedRow] = {}  #: by cache key
        self.hooks: dict[int, HookRow] = {}  #: by instance

    def open(self) -> int:
        self.epoch += 1
        for draft in self.drafts.values():
            self._give_up(draft)
        self.drafts.clear()
        return self.epoch

    def is_drafted(self, key: int) -> bool:
        """Whether a call that has not been decided is making the node."""
        return any(draft.first_key <= key <= draft.last_key for draft in self.drafts.values())

    def _give_up(self, nodes: DraftRow) -> None:
        for key in range(nodes.first_key, nodes.last_key + 1):
            assert not any(block.first_key <= key < block.first_key + block.size for block in self.blocks), (
                "it was made"
            )
            for rows in (self.nodes, self.keys, self.delays, self.rebound, self.rebinding_of):
                rows.pop(key, None)
            self.mail.waits.pop(key, None)

    # --- writing --------------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> None:
        for function in changes.functions:
            _once(self.functions, function.id, function.function)
        for instance in changes.instances:
            assert instance.id not in {row.id for row in self.instances.values()}, "an instance's ID is taken"
            _once(self.instances, instance.key, instance)
        for hook in changes.hooks:
            assert hook.instance in self.instances
            self.hooks[hook.instance] = hook
        for turn in changes.turns:
            assert turn.instance in self.instances
            _once(self.turns, turn.instance, turn)
        self.keys.update(changes.keys)
        self.mail.write(changes)
        self.delays.update((row.key, NodeDelay(row.seconds, row.until)) for row in changes.delays)
        for cache_key in changes.uncached:
            self.cached.pop(cache_key, None)
        self.cached.update((row.key, row) for row in changes.cached)
        for end in changes.instance_ends:
            self.ends[end.key] = end
        for block in changes.blocks:
            assert not any(_overlap(block, other) for other in self.blocks), f"{block} overlaps an earlier run"
            self.blocks.append(block)
        for node in changes.nodes:
            sources = map(abs, unpack_keys(node.sources))
            assert all(source in self.nodes for source in sources), "a source comes after its node"
            _once(self.nodes, node.key, node)
        for revived in changes.retried:
            self._revive(revived)
        for rebinding in changes.rebindings:
            _once(self.rebindings, rebinding.id, rebinding)
        for rebound in changes.rebound:
            assert rebound.function in self.functions
            assert not self.has_ended(rebound.key)
            assert rebound.rebinding in {0, *self.rebindings}
            self.rebound[rebound.key], self.rebinding_of[rebound.key] = rebound.function, rebound.rebinding
        for used in changes.used_failures:
            assert used.key in self.outcomes
            assert used.instance == self.nodes[used.key].instance
            self.used_failures.add(used.key)
        self.links.update(changes.links)
        for outcome in changes.outcomes:
            assert outcome.key in self.nodes
            assert outcome.worker in {0, *self.worker_names}
            self._is_linked(outcome)
            _once(self.outcomes, outcome.key, outcome)
        for resolved in changes.resolved:
            self._resolve(resolved)
        self.progress.update((row.key, row) for row in changes.progress)
        for eager_attempt in changes.eager_attempts:
            before = self.eager_attempts.get(eager_attempt.attempt, eager_attempt)
            assert eager_attempt.eager_state != EagerState.OPEN or before == eager_attempt, (
                f"{before} has ended already"
            )
            assert before.eager_state != EagerState.ABORTED or before == eager_attempt, f"{before} was rolled back"
            self.eager_attempts[eager_attempt.attempt] = eager_attempt
        for made in changes.eager_blocks:
            assert made.attempt in self.eager_attempts
            _once(self.eager_attempt_of, made.first_key, made.attempt)
        for first_key, trace in changes.traces:
            _once(self.traces, first_key, trace)
        for what in changes.key_pauses_over:
            self.key_pauses.pop(what, None)
        self.key_pauses.update((row.paused, row) for row in changes.key_pauses)
        for queue in changes.resumed:
            self.paused.pop(queue, None)
        for row in changes.paused:
            assert row.queue not in self.paused
            self.paused[row.queue] = row
        for number, name in changes.worker_names:
            _once(self.worker_names, number, name)
        self.workers.update(changes.workers_joined)
        for worker in changes.workers_left:
            self.workers.pop(worker, None)
        for draft in changes.drafts:
            _once(self.drafts, draft.first_key, draft)
        for nodes in changes.given_up:
            self._give_up(nodes)
        for first_key in changes.drafts_over:
            del self.drafts[first_key]

    def _is_linked(self, outcome: OutcomeRow) -> None:
        own = self.nodes[outcome.key].instance
        for key in (*unpack_keys(outcome.refs), *([outcome.root_cause] if outcome.root_cause else ())):
            other = self.nodes[key].instance
            assert self.is_kept_by(own, other), f"instance {own} needs {other}, and no link says so"

    def is_kept_by(self, own: int, other: int) -> bool:
        """Whether links lead from one instance to the other."""
        reached, stack = {own}, [own]
        while stack:
            instance = stack.pop()
            for link in self.links:
                if link.instance == instance and link.named not in reached:
                    reached.add(link.named)
                    stack.append(link.named)
        return other in reached

    def _resolve(self, row: ResolvedRow) -> None:
        outcome = self.outcomes[row.key]
        assert outcome.state == State.RESOLVING, f"node {row.key} has ended already"
        self.outcomes[row.key] = outcome._replace(
            state=row.state, root_cause=row.root_cause, ended=row.ended, returned=outcome.ended
        )

    def _revive(self, row: RetriedRow) -> None:
        outcome = self.outcomes[row.key]
        assert outcome.state in (State.FAILED, State.COMPLETED), f"node {row.key} has not ended"
        if row.state == State.RESOLVING:
            assert outcome.value is not None
            returned = outcome.returned or outcome.ended
            self.outcomes[row.key] = outcome._replace(state=row.state, root_cause=0, ended=returned, returned=0.0)
        else:
            del self.outcomes[row.key]
            self.used_failures.discard(row.key)

    # --- reading --------------------------------------------------------------------------------------

    def has_ended(self, key: int) -> bool:
        return key in self.outcomes and self.outcomes[key].state != State.RESOLVING

    def key_of(self, id: bytes) -> int:
        counter = int.from_bytes(id[12:], "big")
        for block in self.blocks:
            if block.origin == id[:12] and block.first <= counter < block.first + block.size:
                return block.first_key + counter - block.first
        raise KeyError(id)

    def stored(self, id: bytes) -> StoredInstance | None:
        row = next((row for row in self.instances.values() if row.id == id), None)
        if row is None:
            return None
        end = self.ends.get(row.key)
        ended, failed = (end.ended, end.failed) if end else (None, False)
        return StoredInstance(row, ended, failed, self.hooks.get(row.key), self.mail.of({row.key}))

    def instance(self, id: bytes) -> tuple[int, bool]:
        """Key, and whether it failed."""
        stored = self.stored(id)
        assert stored is not None
        return stored.row.key, stored.failed

    def ended(self, keys: Iterable[int]) -> list[EndedNode]:
        """Those that have a value or an end, and all that these name."""
        found: dict[int, EndedNode] = {}
        stack = list(keys)
        while stack:
            key = stack.pop()
            if key not in found and key in self.outcomes:
                node, outcome = self.nodes[key], self.outcomes[key]
                found[key] = EndedNode(
                    key, node.instance, node.function, outcome.state, outcome.refs, outcome.root_cause, outcome.attempt
                )
                stack += unpack_keys(outcome.refs)
        return [found[key] for key in sorted(found)]

    def failed(
        self, root_causes: Iterable[int], more: Collection[int] = (), reruns: Collection[int] = (), plain: bool = True
    ) -> Failed:
        """All that failed because of these, and more, with what it takes to have it go on."""
        root_causes = set(root_causes)
        ended = [outcome for _, outcome in sorted(self.outcomes.items())]
        bad = [outcome for outcome in ended if outcome.root_cause]
        made = self.made_by(reruns)
        own = {row.key for row in bad if row.root_cause in root_causes and row.state == State.FAILED} | set(more)
        own = {key for key in own if not is_made(made, key) and not self.of_dead_attempt(key)}
        nodes = [self._failed(outcome, outcome.key in reruns) for outcome in ended if outcome.key in own]
        instances = {node.instance for node in nodes}
        awaited = [abs(key) for node in nodes for key in unpack_keys(node.sources if node.refs is None else node.refs)]
        others = {
            self.nodes[outcome.key].instance
            for outcome in bad
            if outcome.key not in own and not is_made(made, outcome.key) and not self.of_dead_attempt(outcome.key)
        }
        return Failed(
            nodes=nodes,
            instances=[self._stored(key) for key in sorted(instances)],
            blocks=[
                block
                for block in self.blocks
                if any(block.first_key <= key < block.first_key + block.size for key in own)
            ],
            ended=[row for row in self.ended(awaited) if row.key not in own],
            keys={key: self.keys[key] for key in own if key in self.keys},
            delays={key: self.delays[key] for key in own if key in self.delays},
            rebound={key: self.rebound[key] for key in own if key in self.rebound},
            rebindings=self.rebindings_of(own),
            others=others & instances,
            made=made,
            used=self.users_of(own) if plain else [],
        )

    def _failed(self, outcome: OutcomeRow, reruns: bool) -> FailedNode:
        node = self.nodes[outcome.key]
        refs = None if outcome.value is None or reruns else outcome.refs
        return FailedNode(
            node.key,
            node.instance,
            node.function,
            node.sources,
            outcome.root_cause,
            refs,
            outcome.failure,
            outcome.state,
            outcome.attempt if reruns else 0,
        )

    def users_of(self, failed: Collection[int]) -> list[UsedFailureRow]:
        return [
            UsedFailureRow(key, row.instance)
            for key, row in sorted(self.nodes.items())
            if (outcome := self.outcomes.get(key)) is not None
            and outcome.state != State.CANCELLED
            and (outcome.value is not None or key not in failed)
            and any(-source in failed for source in unpack_keys(row.sources))
            and not self.of_dead_attempt(key)
        ]

    def downstream(self, root_causes: Iterable[int], seeds: Iterable[int]) -> Failed:
        """Return the failed nodes, all nodes that were given one of the failures, and all that depend on them."""
        root_causes, reruns = set(root_causes), set(seeds)
        ended = {key for key, row in self.outcomes.items() if row.state == State.FAILED}
        back = reruns | {key for key in ended if self.outcomes[key].root_cause in root_causes}
        size = -1
        while size != len(back) + len(reruns):
            size = len(back) + len(reruns)
            for key, outcome in self.outcomes.items():
                if outcome.state not in (State.COMPLETED, State.FAILED) or self.of_dead_attempt(key):
                    continue
                if any(abs(source) in back for source in unpack_keys(self.nodes[key].sources)):
                    back.add(key)
                    reruns |= {key} if outcome.value is not None else set()
                elif not back.isdisjoint(unpack_keys(outcome.refs)):
                    back.add(key)
        failed = self.failed(root_causes, back, reruns, plain=False)
        own = {row.key for row in failed.nodes}
        for key, outcome in self.outcomes.items():
            given = any(abs(source) in own for source in unpack_keys(self.nodes[key].sources))
            if outcome.state == State.RESOLVING and given and not self.of_dead_attempt(key):
                failed.resolving.add(key)
        return failed

    def made_by(self, roots: Iterable[int]) -> list[CreatedBlock]:
        """Return the blocks that attempts of these nodes have created, and the blocks that their nodes have created."""
        found: dict[int, CreatedBlock] = {}
        for root in sorted(roots):
            stack = [root]
            while stack:
                creator = stack.pop()
                for block in self.blocks:
                    if block.creator == creator:
                        stack += range(block.first_key, block.first_key + block.size)
                        eager_attempt = self.eager_attempts.get(self.eager_attempt_of.get(block.first_key, 0))
                        found.setdefault(block.first_key, CreatedBlock(block, root, eager_attempt))
        return [found[key] for key in sorted(found)]

    def _stored(self, key: int) -> StoredInstance:
        end = self.ends.get(key) or InstanceEnd(key, None, False)
        return StoredInstance(self.instances[key], end.ended, end.failed, self.hooks.get(key), self.mail.of({key}))

    def live(self) -> Live:
        nodes = [row for _, row in sorted(self.nodes.items()) if not self.has_ended(row.key)]
        unfinished = {row.instance for row in nodes}
        return Live(
            functions=[FunctionRow(*row) for row in self.functions.items()],
            instances=[row for key, row in sorted(self.instances.items()) if key in unfinished],
            blocks=[block for block in self.blocks if block.instance in unfinished],
            nodes=[LiveNode(row.key, row.instance, row.function, row.sources) for row in nodes],
            ended=self.ended(key for row in nodes for key in (row.key, *map(abs, unpack_keys(row.sources)))),
            progress=[self.progress[row.key] for row in nodes if row.key in self.progress],
            keys={row.key: self.keys[row.key] for row in nodes if row.key in self.keys},
            delays={row.key: self.delays[row.key] for row in nodes if row.key in self.delays},
            turns={key: self.turns[key] for key in unfinished if key in self.turns},
            rebound={row.key: self.rebound[row.key] for row in nodes if row.key in self.rebound},
            rebindings=self.rebindings_of(row.key for row in nodes),
            next_rebinding=max(self.rebindings, default=0) + 1,
            paused=list(self.paused.values()),
            key_pauses=list(self.key_pauses.values()),
            mail=self.mail.of(unfinished),
            next_signal=max(self.mail.signals, default=0) + 1,
            next_worker=max(self.worker_names, default=0) + 1,
            traces=dict(self.traces),
            cached=list(self.cached.values()),
            hooks={key: self.hooks[key] for key in unfinished if key in self.hooks},
            workers=list(self.workers.items()),
            failed={key for key in unfinished if key in self.ends and self.ends[key].failed},
            next_node=max(self.nodes, default=0) + 1,
            next_instance=max(self.instances, default=0) + 1,
            next_function=max(self.functions, default=0) + 1,
            eager_attempts=(
                eager_attempts := [row for _, row in sorted(self.eager_attempts.items()) if self._is_live(row)]
            ),
            eager_blocks=[
                (self.eager_attempt_of[block.first_key], block)
                for block in self.blocks
                if self.eager_attempts.get(self.eager_attempt_of.get(block.first_key, 0)) in eager_attempts
            ],
        )

    def rebindings_of(self, keys: Iterable[int]) -> dict[int, RebindingRow]:
        return {key: self.rebindings[id] for key in keys if (id := self.rebinding_of.get(key, 0))}

    def _is_live(self, row: EagerAttemptRow) -> bool:
        return row.eager_state == EagerState.OPEN or (
            row.eager_state == EagerState.COMMITTED and self.is_within(row, EagerState.OPEN)
        )

    def is_within(self, row: EagerAttemptRow, eager_state: EagerState) -> bool:
        """Whether what a released attempt goes back to is that."""
        while row.eager_state == EagerState.COMMITTED and row.parent:
            row = self.eager_attempts[row.parent]
        return row.eager_state == eager_state

    def of_dead_attempt(self, key: int) -> bool:
        """Whether an aborted attempt has created the node."""
        return self._is_of(key, EagerState.ABORTED)

    def is_unsettled(self, key: int) -> bool:
        """Whether an attempt that was aborted, or may be, has created the node."""
        return self._is_of(key, EagerState.ABORTED) or self._is_of(key, EagerState.OPEN)

    def _is_of(self, key: int, eager_state: EagerState) -> bool:
        block = next(block for block in self.blocks if block.first_key <= key < block.first_key + block.size)
        attempt = self.eager_attempt_of.get(block.first_key)
        return attempt is not None and self.is_within(self.eager_attempts[attempt], eager_state)


def _once(table: dict[int, Any], key: int, row: object) -> None:
    assert key not in table, f"written twice: {row}"
    table[key] = row


def _overlap(one: NodeBlockRow, other: NodeBlockRow) -> bool:
    return one.origin == other.origin and one.first < other.first + other.size and other.first < one.first + one.size
