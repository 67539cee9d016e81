"""Chooses the nodes that workers get before the commit that makes them durable, or that makes their sources' results.

A commit takes as long as the disk, and a worker that waits for it does nothing. A crash in between costs the run of a
node that was never acknowledged to a client: the client submits it again, or its source runs again. Nothing is
acknowledged early, and a result is recorded in the commit of its node or in a later one.

A node waits for the commit, as do all later ones of its slot, if

- an attempt made it whose result is part of the commit: if that were lost, the node would have run without ever having
  existed;
- the value of a source comes from another node, or its attempts have failed: the rule by which a late result is refused
  after a crash compares attempts of sources, and does not see such changes;
- it has very many sources, or its envelopes are only in the commit, and not in the cache;
- a signal, or a timeout, has ended a node in the commit: no attempt would tell its value from the next one;
- its function has a rate or a limit and is new: after a crash nothing would tell that starts of it are not known;
- its key is so large that a start after a crash might use it again.
"""

from __future__ import annotations

from collections.abc import Container

from dagorama_broker.engine.payloads import Payloads
from dagorama_broker.model.domain import State
from dagorama_broker.model.hooks import FIRST_HOOK
from dagorama_broker.model.rows import Changes
from dagorama_broker.scheduler import KEYS_LEFT_OUT, Effects, Granted, Node, Scheduler, Slot

#: Sources of a node that are looked at: there is little to gain for one with more.
MOST_SOURCES = 64


class Ahead:
    """The rule above, for one broker."""

    def __init__(self, scheduler: Scheduler, payloads: Payloads) -> None:
        self._scheduler = scheduler
        self._payloads = payloads
        self._last = scheduler.last_stored  # key of a node that is stored

    def split(self, changes: Changes, effects: Effects) -> tuple[list[Granted], list[Granted]]:
        """Return what may be granted before this commit, and what must wait for it."""
        if not effects.granted or not _is_plain(changes) or self._scheduler.has_eager_attempts:
            return [], effects.granted
        below = min(first_child(changes), self._last + KEYS_LEFT_OUT + 1)
        failed = {row.key for row in changes.progress}
        new = {row.id for row in changes.functions}
        ahead, later, waits = list[Granted](), list[Granted](), set[Slot]()
        for granted in effects.granted:
            queue = granted.node.queue
            is_unknown = queue.is_limited and queue.id in new
            if granted.slot not in waits and not is_unknown and self._may_go(granted.node, below, failed):
                ahead.append(granted)
            else:
                waits.add(granted.slot)
                later.append(granted)
        return ahead, later

    def committed(self, changes: Changes) -> None:
        """Note that a commit is durable."""
        if changes.nodes:
            self._last = max(self._last, changes.nodes[-1].key)

    def _may_go(self, node: Node, below: int, failed: Container[int]) -> bool:
        """`below`: the key from which unstored nodes must wait; `failed`: nodes whose failed attempts are committed."""
        key = node.key
        if key in failed or len(node.sources) > MOST_SOURCES:
            return False
        if key > self._last and (key >= below or key not in self._payloads.arguments):
            return False  # it is not stored
        if not node.sources:
            return True
        values = self._payloads.values.kept
        return all(
            (source.state is State.COMPLETED and not source.refs and source.key in values) or source.slot is not None
            for source in node.sources
        )


def first_child(changes: Changes) -> int:
    """Return the smallest key of a node that follows from an outcome in this commit; else a large number.

    Such a node was made by an attempt, or is a failure hook: nothing is told of a failure that may never be recorded.
    """
    made = (block.first_key for block in changes.blocks if block.creator or block.first >= FIRST_HOOK)
    return min(made, default=1 << 63)


def _is_plain(changes: Changes) -> bool:
    """Return whether a commit holds nothing but new nodes and results."""
    return not (
        changes.retried or changes.drafts or changes.given_up or changes.drafts_over or changes.eager_attempts
        or changes.eager_blocks or changes.rebindings or changes.rebound or changes.used_failures or changes.removed
        or changes.paused or changes.resumed or changes.waits
    )  # fmt: skip
