"""The graph of unfinished nodes: which nodes wait for which, and what follows when one completes. Knows no workers.

`Graph` has five layers, each in its own module: names, states, cached values, endings, and here the dependencies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dagorama_broker.model.domain import ENDED, pack_keys
from dagorama_broker.model.hooks import HookRow
from dagorama_broker.model.rows import InstanceRow, LabelRow, LargeRow, NameRow, OutcomeRow, TurnRow
from dagorama_broker.scheduler.endings import Endings
from dagorama_broker.scheduler.instances import Instance
from dagorama_broker.scheduler.mail import begin_wait
from dagorama_broker.scheduler.objects import NONE, Node
from dagorama_broker.scheduler.requests import AnnouncedKey, NewNodes, name_key
from dagorama_broker.scheduler.transitions import COMPLETED, RESOLVING, WAITING

#: Dependents that are notified at once when a node completes: one of these may have been claimed together with it.
LOOKED_AT = 8


class Graph(Endings):
    def start(self, node: Node, announced: AnnouncedKey | None = None) -> None:
        """Let a new node wait for its sources; if one has failed, so does the node.

        With the cache key that its caller has announced, the node completes at once if its value is cached, and no
        worker is asked for its key. The key is not used for a node that starts later: others, which compute the same,
        would wait for it, nor for one that was moved to other code before it started.
        """
        if announced is not None and node.queue.caches and node.key not in self.made_with:
            starts_now = not node.sources and node.rare is None and not node.queue.function.delay
            if starts_now:
                waits = self.follows(node, announced.key)
                self.caching.announced[node.key] = announced.signature
                if waits:
                    return
                if self.take_over(node):
                    self.left -= 1  # it is more work than to queue it
                    self._tell([node], LOOKED_AT)
                    return
        self.settle(node, self.wait_for(node, node.sources) if node.sources else None)

    def wait_for(self, node: Node, others: Sequence[Node]) -> Node | None:
        """Make a node wait for its sources, or its promises, that have not ended.

        Returns one that failed or was cancelled, if there is one: then the caller must settle the node, and none of
        the others makes it ready before that.
        """
        bad = None
        self.edges += len(others)
        for other in others:
            other.consumers += 1
            if other.state not in ENDED:
                node.pending += 1
                if other.dependents is None:
                    other.dependents = [node]
                else:
                    other.dependents.append(node)
            elif other.state is not COMPLETED:
                if other.key not in node.tolerates:
                    bad = other
            elif other.refs and other.consumers == 1:
                self._hold_refs(other)
        if bad is not None:
            node.pending += 1
        return bad

    def wait_again(self, node: Node, others: Sequence[Node], again: Mapping[int, Node]) -> tuple[Node, ...]:
        """Make a waiting node wait for its ended sources, or promises, that are unfinished `again`, by key.

        Returns the same nodes as they are now.
        """
        now = tuple([again.get(other.key, other) for other in others])
        before = [other for other, new in zip(others, now, strict=True) if other is not new]
        self._let_go(before)
        self.edges -= len(before)
        self.wait_for(node, [again[other.key] for other in before])
        return now

    def end_key_pauses(self, most: int) -> None:
        """Grant nodes of up to `most` keys again whose pauses are over."""
        for what in self.key_pauses.end(self.now, most, self.changes):
            self.key_pauses.apply_to_all(what, self.stir)

    def end_key_pauses_of(self, queue: str) -> int:
        """Grant nodes of a queue again whose keys or limits are paused; return how many pauses that has ended."""
        found = self.key_pauses.of_queue(queue)
        for what in found:
            self.key_pauses.end_early(what, self.changes)
            self.key_pauses.apply_to_all(what, self.stir)
        return len(found)

    def settle(self, node: Node, bad: Node | None) -> None:
        """Queue, complete or fail a WAITING or RESOLVING node if nothing that it waits for is unfinished."""
        if bad is not None:
            self.end_badly(node, bad.state, bad.root_cause or bad)
        elif node.pending:
            return
        elif node.state is WAITING:
            if node.rare is not None and node.rare.wait is not None:
                begin_wait(self, node)
            else:
                self._make_ready(node)
        else:
            self._resolve(node)
            self._tell([node])

    def _hold_refs(self, ended: Node) -> None:
        """Count readers for all values that an ended node's value names, directly or through others."""
        stack = [ended]
        while stack:
            for ref in stack.pop().refs:
                ref.consumers += 1
                if ref.refs and ref.consumers == 1:
                    stack.append(ref)

    def complete(
        self, node: Node, value: bytes, refs: tuple[Node, ...], large: Sequence[bytes], microseconds: int, worker: int
    ) -> None:
        """Record the value of a node; if it names unfinished nodes, the node goes on waiting for them.

        `microseconds` is how long it ran, `worker` the number of the worker that ran it.
        """
        bad = None
        if refs:
            node.refs = refs
            self.record_links(node.instance, refs)
            node.tolerates = NONE  # a failure may stand for an argument, not for a part of the result
            bad = self.wait_for(node, refs)
        if large:
            self.changes.large += [LargeRow(node.key, sha256) for sha256 in large]
        self.move(node, COMPLETED if not node.pending and bad is None else RESOLVING)
        named, ended = pack_keys([ref.key for ref in refs]) if refs else b"", self.now + self.wall
        self.changes.outcomes.append(
            OutcomeRow(node.key, int(node.state), node.attempt, named, value, 0, None, ended, microseconds, worker)
        )
        if bad is not None:  # its value is kept: running it again would make its children again
            self.end_badly(node, bad.state, bad.root_cause or bad)
        elif not node.pending:
            self._tell([node], LOOKED_AT)
        else:
            self._free_from_circles(node)

    def _free_from_circles(self, node: Node) -> None:
        """Let nodes run that wait for another one's value, if that waits for them since `node` names its promises."""
        for follower in self.caching.followers_in_circles(node):
            follower.pending = 0
            self._make_ready(follower)
            follower.twin = None

    def record_instance(self, instance: Instance, new: NewNodes) -> None:
        """Give a new instance its turn, and write its rows; its first nodes are `new`."""
        assert new.creates is not None
        self.unwritten.add(instance.id)
        row = InstanceRow(instance.key, instance.id, *new.creates, self.now + self.wall)
        start = new.start
        if start is None:
            self._line_up_instance(instance, 0, "")
            self.changes.instances.append(row)
            return
        self._line_up_instance(instance, start.priority, start.fair)
        self.changes.instances.append(row._replace(priority=start.priority))
        if start.hook is not None:
            self.set_hook(instance, HookRow(instance.key, *start.hook))
        self.changes.labels += [LabelRow(instance.key, label, value) for label, value in start.labels]
        if start.name:
            self.unwritten.add(name_key(row.definition, start.name))
            self.changes.names.append(NameRow(instance.key, row.definition, start.name, start.digest))

    def _line_up_instance(self, instance: Instance, priority: int, fair: str) -> None:
        """Give a new instance its turn, with a row if that is not the order of creation."""
        line = self.turns.line(priority)
        instance.line_up(line, line.take(instance.key, fair), priority)
        if line.shares:
            instance.fair = fair
            self.changes.turns.append(TurnRow(instance.key, fair, instance.turn))
