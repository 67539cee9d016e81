"""Watches what is removed: not before its time, not while it is needed, in the end, and with nothing left behind."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from dagorama_broker.engine.retention_policy import RetentionPolicy
from dagorama_broker.model.domain import ENDED, State, unpack_keys
from dagorama_broker.model.rows import Changes, OutcomeRow, RemovedRow, ResolvedRow, RetriedRow

from .programs import Computation, Program
from .watcher import Value, Watcher

_GONE = re.compile(r"instance ([0-9a-f]{32}) ended on .* and was removed after its retention of .* s \(DAGORAMA_RET")
#: Tables of the store that are empty when all instances are gone; what else it has is of functions and workers.
_TABLES = (
    "instances", "instance_keys", "blocks.in_order", "blocks.by_instance", "blocks.by_origin", "nodes", "outcomes",
    "progress", "concurrency_keys", "large.by_node", "large.references", "eager.rows", "eager.by_node",
    "eager.creators", "rebinds.rebound", "used_failures",
)  # fmt: skip
_BOOKS_OF_REMOVAL = ("_ends", "_links", "_named", "_leftovers")


class AgingWatcher(Watcher):
    keeping = RetentionPolicy()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.forgets = True
        self.by_key: dict[int, bytes] = {}  #: on disk, or removed
        self.nodes_of: dict[int, list[int]] = {}  #: by instance
        self.instance_by_node: dict[int, int] = {}  #: by node
        self.named_by: dict[int, set[int]] = {}  #: instances with a value that names a node of this one
        self.ended_at: dict[int, float] = {}  #: wall time by node
        self.removed_at: dict[bytes, float] = {}
        self.revived: set[str] = set()  #: nodes that have run, or waited, again
        self.dropped: dict[str, list[OutcomeRow]] = {}  #: how these had ended: it may be told still
        self.offered: list[tuple[str, list[str]]] = []  #: instances and nodes of theirs that others may name

    # --- the disk -------------------------------------------------------------------------------------

    def committed(self, changes: Changes) -> None:
        self.by_key.update((row.key, row.id) for row in changes.instances)
        for run in changes.blocks:
            for key in range(run.first_key, run.first_key + run.size):
                self.instance_by_node[key] = run.instance
                self.nodes_of.setdefault(run.instance, []).append(key)
        super().committed(changes)
        rows: list[OutcomeRow | ResolvedRow] = [*changes.outcomes, *changes.resolved]
        for ended in rows:
            self.ended_at[ended.key] = ended.ended
        for outcome in changes.outcomes:
            own = self.instance_by_node[outcome.key]
            for ref in unpack_keys(outcome.refs):
                self.named_by.setdefault(self.instance_by_node[ref], set()).add(own)
        gone = {row.key for row in changes.removed}
        for removed in changes.removed:
            self._removed(removed, gone)

    def _goes_on(self, row: RetriedRow) -> None:
        """It has ended, and is unfinished again: all that was counted of it begins again."""
        name, before = self.names[row.key], self.seen.get(row.key)
        self.note("revived", row.key, row.state)
        if before is None or State(before.state) not in ENDED:
            self.break_off("retried when it has ended", f"{name} runs again and has not ended")
            return
        self.revived.add(name)
        self.dropped.setdefault(name, []).append(before)
        if row.state == State.RESOLVING:
            self.seen[row.key] = before._replace(state=row.state)
            return
        del self.seen[row.key]
        self.runs.pop(name, None)
        self.not_before.pop(name, None)
        for run in [run for run in self.failed_at if run[0] == name]:
            del self.failed_at[run]

    def _removed(self, row: RemovedRow, gone: set[int]) -> None:
        self.note("removed", row.key)
        nodes = self.nodes_of.get(row.key, [])
        unfinished = [self.names[key] for key in nodes if not self.has_ended(key)]
        self.require(not unfinished, "not removed while it is needed", f"{unfinished} had not ended")
        if unfinished:
            return
        naming = self.named_by.get(row.key, set()) - gone
        naming = {key for key in naming if self.by_key[key] not in self.removed_at}
        self.require(not naming, "not removed while it is needed", f"{row.key} is named by {naming}")
        failed = any(self.seen[key].state != State.COMPLETED for key in nodes)
        age = time.time() - max(self.ended_at[key] for key in nodes)
        early = (self.keeping.failed if failed else self.keeping.ended) - age
        self.require(early < 1e-3, "not removed before its time", f"{row.key} was removed {early:.3f} s too early")
        self.removed_at[row.id] = self.loop.now

    def time_left(self, name: str) -> float:
        """Seconds for which the instance of a node, or of this prefix, is kept if it has ended; 0: it has not."""
        prefix = name.split("/")[0] + "/"
        keys = [key for other, key in self.keys.items() if other.startswith(prefix)]
        if not keys or not all(self.has_ended(key) for key in keys):
            return 0.0
        failed = any(self.seen[key].state != State.COMPLETED for key in keys)
        kept = self.keeping.failed if failed else self.keeping.ended
        return max(0.0, max(self.ended_at[key] for key in keys) + kept - time.time())

    # --- what others are told -------------------------------------------------------------------------

    def told_gone(self, method: str, text: str) -> None:
        found = _GONE.match(text)
        if found is None:
            self.break_off("no call is refused", f"{method}: {text}")
        else:
            is_gone = bytes.fromhex(found[1]) in self.removed_at
            self.require(is_gone, "told is durable", f"{method}: {text}; it is there")

    def told_end(self, name: str, state: int, failure: str) -> None:
        if all(row.state != state for row in self.dropped.get(name, ())):
            super().told_end(name, state, failure)

    def told_value(self, envelope: bytes, id: bytes) -> str:
        name = Value.of(envelope).name
        if any(row.value == envelope for row in self.dropped.get(name, ())):
            return name
        return super().told_value(envelope, id)

    def told_ended(self, instance: bytes) -> None:
        keys = [key for key, id in self.by_key.items() if id == instance]
        unfinished = [node for key in keys for node in self.nodes_of.get(key, ()) if not self.has_ended(node)]
        self.require(not unfinished, "told is durable", f"{instance.hex()} is told to have ended: {unfinished}")

    # --- retries --------------------------------------------------------------------------------------

    def mend(self, programs: Sequence[Program]) -> list[tuple[Program, int, int]]:
        """From now on these do not fail; how they were, for `leave_broken`."""
        before = [(program, program.fails, program.dies) for program in programs]
        for program in programs:
            program.fails = program.dies = 0
            self.revived.discard(program.name)
        self.computation = Computation(self.plan)
        return before

    def leave_broken(self, before: Sequence[tuple[Program, int, int]]) -> None:
        """The retry was refused. An earlier one may have been heard of which the answer was lost."""
        for program, fails, dies in before:
            if program.name not in self.revived:
                program.fails, program.dies = fails, dies
        self.computation = Computation(self.plan)

    def acknowledged_retry(self, repaired: Sequence[tuple[Program, int, int]]) -> None:
        for program, _, _ in repaired:
            self.require(program.name in self.revived, "acknowledged is durable", f"{program.name} was not run again")

    # --- the end --------------------------------------------------------------------------------------

    def _check_outcome(self, name: str, may_be_cancelled: bool) -> None:
        """A node that returns a promise of another instance fails if that one was gone by then."""
        row = self.seen.get(self.keys.get(name, 0))
        if row is None or row.state != State.FAILED or not self._returns_what_is_gone(name):
            super()._check_outcome(name, may_be_cancelled)

    def _returns_what_is_gone(self, name: str) -> bool:
        returns = self.plan.programs[name].returns
        others = [self.instance_by_node[self.keys[other]] for other in returns if other in self.keys]
        own = self.instance_by_node[self.keys[name]]
        return any(other != own and self.by_key[other] in self.removed_at for other in others)

    def is_all_gone(self) -> bool:
        return len(self.removed_at) == len(self.by_key) and not self._left()

    def check_gone(self) -> None:
        """All has had its time."""
        if self.violation is None:
            there = [key for key, id in self.by_key.items() if id not in self.removed_at]
            self.require(not there, "removed in the end", f"instances {there} are there still")
            self.require(not self._left(), "nothing is left behind", f"{self._left()}")

    def _left(self) -> dict[str, int]:
        of_removal = self.disk.tables.retention
        left = {name: len(attrgetter(name)(self.disk.tables)) for name in _TABLES}
        left |= {name: len(getattr(of_removal, name)) for name in _BOOKS_OF_REMOVAL}
        left["_in_order"] = sum(map(len, of_removal._in_order.values()))
        return {name: count for name, count in left.items() if count}
