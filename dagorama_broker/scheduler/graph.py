"""The graph: assigns states, ends nodes and tells their dependents. Knows no workers.

Nothing here scans all nodes and nothing recurses: a chain or a fan-in of 100,000 is normal work.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from operator import attrgetter
from struct import pack
from typing import TYPE_CHECKING, NamedTuple

from dagorama_broker.errors import IllegalMove
from dagorama_broker.model.domain import ENDED, Function, State
from dagorama_broker.model.rows import (
    AdoptionRow,
    Changes,
    FunctionRow,
    InstanceEnd,
    LargeRow,
    LinkRow,
    OutcomeRow,
    ProgressRow,
    ResolvedRow,
)
from dagorama_broker.scheduler.limits import STEP
from dagorama_broker.scheduler.objects import NONE, UNSTARTED, Effects, Instance, Node, Run, Trouble
from dagorama_broker.scheduler.queues import KEY_MASK, Head, Lane, oldest, order
from dagorama_broker.scheduler.transitions import BACKOFF, CLAIMED, COMPLETED, QUEUED, RESOLVING, TRANSITIONS, WAITING

if TYPE_CHECKING:
    from dagorama_broker.scheduler.drafts import Draft

FIRST = attrgetter("first")
#: Dependents that are told at once of a node that completes: one of these may have been sent along with it.
LOOKED_AT = 8
#: Bytes that a function and its lane take beside its names, roughly.
FUNCTION_BYTES = 1_500


def pack_keys(nodes: Sequence[Node]) -> bytes:
    """Keys as the store keeps them: little-endian 64-bit integers."""
    return pack(f"<{len(nodes)}q", *[node.key for node in nodes]) if nodes else b""


def pack_sources(node: Node) -> bytes:
    """The same for a node's sources; those whose failure it tolerates are negative."""
    if not node.tolerates:
        return pack_keys(node.sources)
    keys = [-source.key if source.key in node.tolerates else source.key for source in node.sources]
    return pack(f"<{len(keys)}q", *keys)


def run_with(runs: Sequence[Run], counter: int) -> Run | None:
    """The run that has this counter, of those of one origin in the order of their counters."""
    place = bisect_right(runs, counter, key=FIRST) - 1
    return runs[place] if place >= 0 and counter < runs[place].first + runs[place].count else None


def _recount(lane: Lane, before: State, state: State) -> None:
    """Have a function's lane know of a move in the lane of one of its concurrency keys; who leaves a queue is known."""
    base = lane.base
    if before is CLAIMED:
        base.keyed_claimed -= 1
    if state is CLAIMED:
        base.keyed_claimed += 1
    elif state is QUEUED:
        base.keyed_ready += 1
    lane.recount()
def _size_of(function: Function) -> int:
    """Bytes that a function takes in memory, roughly."""
    texts = (function.name, function.hash, function.queue, function.taint, function.class_code)
    return FUNCTION_BYTES + 2 * sum(map(len, texts))


class Noticed(NamedTuple):
    """A node that has ended just now."""

    key: int
    instance: int
    culprit: int  #: 0: it has completed
    needed: frozenset[int]  #: keys of its sources and of the promises in its value


def _noticed(node: Node) -> Noticed:
    needed = frozenset([other.key for other in (*node.sources, *node.refs)])
    return Noticed(node.key, node.instance.key, 0 if node.state is COMPLETED else (node.culprit or node).key, needed)


class Tally:
    """Counts the nodes that end badly because of a call, over all steps that this takes."""

    __slots__ = ("count", "open")

    def __init__(self) -> None:
        self.count = 0
        self.open = 0  #: ended nodes whose dependents have not all been told


class _Untold(NamedTuple):
    """Dependents of an ended node that are to be told in a later step."""

    node: Node
    dependents: list[Node]
    at: int  #: the first that was not told
    tally: Tally | None


class Graph:
    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}  #: that have not ended
        self.instances: dict[bytes, Instance] = {}  #: with a node that has not ended
        self.origins: dict[bytes, list[Run]] = {}  #: of those instances
        self.reserved: dict[bytes, Draft] = {}  #: ids of instances and origins of nodes that drafts are making
        self.drafted: dict[bytes, Instance] = {}  #: that drafts add to: they stay the same while a draft goes on
        self.starting: deque[Draft] = deque()  #: made, with nodes that have not been started
        self.untold: deque[_Untold] = deque()  #: ended nodes with dependents that have not been told
        self.left = STEP  #: nodes that this step may still start, tell or queue
        self.lanes: dict[Function, Lane] = {}
        self.lane_by_id: dict[int, Lane] = {}  #: the same, by the id that rows name them by
        self.keyed: dict[tuple[int, str], Lane] = {}  #: lanes of concurrency keys that an unfinished node has
        self.active: dict[int, Lane] = {}  #: functions' own lanes with a queued node, whatever its key, by function
        self.stirred: dict[Lane, None] = {}  #: lanes of which another node may be the oldest that can be claimed
        self.delayed: dict[int, Lane] = {}  #: lanes with a node in BACKOFF
        self.counts = [0] * len(State)  #: nodes by state; those that ended, since the start
        self.pauses: list[tuple[float, int]] = []  #: heap of (when, key) of nodes in BACKOFF
        self.expiries: list[tuple[float, int]] = []  #: heap of (when, key) of nodes that may be queued so long
        self.expires_at: dict[int, float] = {}  #: of those that are queued now
        self.next_node = 1
        self.next_instance = 1
        self.next_lane = 1
        self.edges = 0  #: sources and promises of unfinished nodes
        self.failures_size = 0  #: bytes of failures of unfinished nodes
        self.functions_size = 0  #: bytes that the functions take
        self.made_with: dict[int, str] = {}  #: the code of unfinished nodes that other code has adopted
        self.adoptions: dict[int, AdoptionRow] = {}  #: what allows that, by the same keys
        self.next_adoption = 1
        self._last_keyed = 0
        self.noticed: list[Noticed] | None = None  #: ends of nodes, while a retry reads the store
        self.wall = 0.0  #: what to add to the heart's clock for seconds since 1970
        self.now = 0.0
        self.changes = Changes()
        self.effects = Effects()

    # --- names ---------------------------------------------------------------------------------------

    def lane(self, function: Function) -> Lane:
        """The lane of a function, made where it is new."""
        lane = self.lanes.get(function)
        if lane is None:
            lane = self.enter_lane(Lane(self.next_lane, function))
            self.next_lane += 1
            self.changes.functions.append(FunctionRow(lane.id, function))
        return lane

    def enter_lane(self, lane: Lane) -> Lane:
        """Take up the lane of a function, new or read back."""
        self.lanes[lane.function] = self.lane_by_id[lane.id] = lane
        self.functions_size += _size_of(lane.function)
        return lane

    def drop_lane(self, id: int) -> bool:
        """Let go of the lane of a function that no stored node names, unless something in memory uses it."""
        lane = self.lane_by_id.pop(id)
        function = lane.function
        del self.lanes[function]
        self.functions_size -= _size_of(function)
        # Nodes, and what is about to become nodes, hold on to their lanes: if nothing does, it is gone with this name.
        # Where it would only go later, it stays until the next time.
        left = weakref.ref(lane)
        del lane
        used = left()
        if used is not None:
            self.enter_lane(used)
            return False
        self.changes.functions_gone.append(id)
        return True

    def lane_of(self, lane: Lane, key: str) -> Lane:
        """The lane of a concurrency key beside that of its function, for a node that may yet be refused."""
        keyed = self.keyed.get((lane.id, key))
        if keyed is None:
            self._last_keyed -= 1
            keyed = Lane(lane.id, lane.function, key, self._last_keyed, lane)
        return keyed

    def enter_keyed(self, node: Node) -> None:
        """A node with a concurrency key is there: its lane lasts as long as such a node."""
        lane = node.lane = self.keyed.setdefault((node.lane.id, node.lane.key), node.lane)
        lane.nodes += 1

    def _leave_keyed(self, lane: Lane) -> None:
        lane.nodes -= 1
        if not lane.nodes:
            del self.keyed[lane.id, lane.key]

    def find(self, id: bytes) -> Node | None:
        """A node that has not ended by its 16-byte id."""
        counter = int.from_bytes(id[12:], "big")
        run = run_with(self.origins.get(id[:12], ()), counter)
        return self.nodes.get(run.key_of(counter)) if run is not None else None

    def unfinished_of(self, instance: bytes) -> Iterator[Node]:
        """The nodes of an instance that have not ended; those that come or end between two of them count as well."""
        known = self.instances.get(instance)
        for run in known.runs if known is not None else ():
            for start in range(run.first_key, run.first_key + run.count, STEP):
                keys = range(start, min(start + STEP, run.first_key + run.count))
                yield from [self.nodes[key] for key in keys if key in self.nodes]

    def recall(self, key: int, id: bytes, failed: bool) -> None:
        """Take up an instance that has left memory, because a call names it."""
        if id not in self.instances:
            self.instances[id] = self.drafted.get(id) or Instance(key, id, failed)

    def enter_run(self, run: Run) -> None:
        """Nodes that were made before are found by their ids again."""
        run.instance.runs.append(run)
        of_origin = self.origins.setdefault(run.origin, [])
        if of_origin and of_origin[-1].first > run.first:
            insort(of_origin, run, key=FIRST)
        else:
            of_origin.append(run)

    def forget_idle(self, ids: Iterable[bytes]) -> None:
        """Let go of instances that were taken up for nothing."""
        for id in ids:
            instance = self.instances.get(id)
            if instance is not None and not instance.live:
                self._forget_instance(instance)

    def _forget_instance(self, instance: Instance) -> None:
        """What has no unfinished node leaves memory; the store has it."""
        self.instances.pop(instance.id, None)
        for run in instance.runs:
            self.origins.pop(run.origin, None)
        instance.runs = []

    # --- moving ---------------------------------------------------------------------------------------

    def move(self, node: Node, state: State) -> None:
        """Assign a state: the only place that does."""
        before = node.state
        if state not in TRANSITIONS[before]:
            raise IllegalMove(f"node {node.key}: {before.name} -> {state.name}")
        node.state = state
        counts = self.counts
        counts[before] -= 1
        counts[state] += 1
        lane = node.lane
        if before is QUEUED:
            self._leave_queue(lane)
            if lane.function.queue_timeout:
                del self.expires_at[node.key]
        elif before is CLAIMED:
            lane.claimed -= 1
            if lane.limit:
                self.stirred[lane] = None
        elif before is BACKOFF:
            self._leave_delayed(lane)
        if state is QUEUED:
            lane.ready += 1
            self.active[lane.id] = lane.base if lane.key else lane
        elif state is CLAIMED:
            lane.claimed += 1
        elif state is BACKOFF:
            self._delay(lane)
        if lane.key:
            _recount(lane, before, state)

    def _leave_queue(self, lane: Lane) -> None:
        lane.ready -= 1
        base = lane
        if lane.key:
            base = lane.base
            base.keyed_ready -= 1
        if not lane.ready:
            lane.clear()
            if not base.ready and not base.keyed_ready:
                del self.active[base.id]

    def _leave_delayed(self, lane: Lane) -> None:
        lane.delayed -= 1
        if lane.key:
            lane.base.keyed_delayed -= 1
        if not lane.delayed:
            del self.delayed[lane.number]

    def change_lane(self, node: Node, lane: Lane) -> None:
        """A node that nobody holds goes over to another function's lane; its state and its place in the order stay."""
        old = node.lane
        if node.state is QUEUED:
            self._leave_queue(old)
        elif node.state is BACKOFF:
            self._leave_delayed(old)
        node.lane = lane
        if old.key:
            old.recount()
            node.lane = self.lane_of(lane, old.key)
            self._leave_keyed(old)
            self.enter_keyed(node)
        lane = node.lane
        if node.state is QUEUED:
            lane.ready += 1
            self.active[lane.id] = lane.base
            self._line_up(node)
        elif node.state is BACKOFF:
            self._delay(lane)
        if lane.key:
            _recount(lane, WAITING, node.state)

    def _line_up(self, node: Node) -> None:
        lane = node.lane
        lane.push(order(node.instance.key, node.key, lane.function.priority))
        self.stirred[lane] = None

    def _delay(self, lane: Lane) -> None:
        lane.delayed += 1
        if lane.key:
            lane.base.keyed_delayed += 1
        self.delayed[lane.number] = lane

    def take_up(self, node: Node) -> None:
        """A node that was made before; it comes in the state in which it was left."""
        self.nodes[node.key] = node
        if node.lane.key:
            self.enter_keyed(node)
        self.counts[node.state] += 1
        node.instance.live += 1
        if node.state is BACKOFF:
            self._delay(node.lane)

    def take_out(self, node: Node) -> None:
        """Forget a node that was entered and is not made after all."""
        del self.nodes[node.key]
        self.counts[node.state] -= 1
        if node.lane.key:
            self._leave_keyed(node.lane)
        self.made_with.pop(node.key, None)
        self.adoptions.pop(node.key, None)

    def queue(self, node: Node) -> None:
        """To the workers, at its place in the order."""
        self.move(node, QUEUED)
        self._line_up(node)
        if node.lane.function.queue_timeout:
            self._expire(node, self.now + node.lane.function.queue_timeout)

    def back(self, node: Node) -> None:
        """A claim has come to nothing: to the workers again, or to wait for the source that it was sent along with."""
        if node.pending:
            self.move(node, WAITING)
        else:
            self.queue(node)

    def _expire(self, node: Node, when: float) -> None:
        self.expires_at[node.key] = when
        heappush(self.expiries, (when, node.key))
        if len(self.expiries) > 2 * len(self.expires_at) + 64:  # most have left the queue long before their time
            self.expiries = [(when, key) for key, when in self.expires_at.items()]
            heapify(self.expiries)

    def pause(self, node: Node, seconds: float) -> None:
        """To the workers when so much time has gone by."""
        self.move(node, BACKOFF)
        trouble = self.trouble(node)
        trouble.retry_at, trouble.pause = self.now + seconds, seconds
        heappush(self.pauses, (trouble.retry_at, node.key))
        self.record_trouble(node)

    def _make_ready(self, node: Node) -> None:
        """What it waited for has ended well."""
        if node.lane.function.delay:
            self.pause(node, node.lane.function.delay)
        else:
            self.queue(node)

    def due(self, now: float) -> Iterator[Node]:
        """Nodes whose pause is over, taken out of the heap."""
        while self.pauses and self.pauses[0][0] <= now:
            node = self.nodes.get(heappop(self.pauses)[1])
            if node is not None and node.state is BACKOFF and self.trouble(node).retry_at <= now:
                yield node

    def expired(self, now: float) -> Iterator[Node]:
        """Nodes that were queued for too long, taken out of the heap."""
        while self.expiries and self.expiries[0][0] <= now:
            when, key = heappop(self.expiries)
            if self.expires_at.get(key) == when:
                yield self.nodes[key]

    def first(self, lane: Lane) -> int:
        """The place of the oldest queued node of an active lane; what left the lane meanwhile is dropped."""
        while len(lane) != lane.ready:
            node = self.nodes.get(lane.first() & KEY_MASK)
            if node is not None and node.state is QUEUED and node.lane is lane:
                break
            lane.pop()
        return lane.first()

    def head(self, lane: Lane) -> Head | None:
        """The oldest node of a function's lanes that may be claimed now, as its place and its lane."""
        return oldest(lane, self.first)

    # --- waiting --------------------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        """A new node waits for its sources; where one has failed, so does the node."""
        self.settle(node, self.wait_for(node, node.sources))

    def wait_for(self, node: Node, others: Sequence[Node]) -> Node | None:
        """Make a node wait for those of its sources, or of its promises, that have not ended.

        Returns one that ended badly, if there is one: then the node is to be settled, and none of the others makes it
        ready before that.
        """
        bad = None
        self.edges += len(others)
        for other in others:
            other.readers += 1
            if other.state not in ENDED:
                node.pending += 1
                if other.dependents is None:
                    other.dependents = [node]
                else:
                    other.dependents.append(node)
            elif other.state is not COMPLETED:
                if other.key not in node.tolerates:
                    bad = other
            elif other.refs and other.readers == 1:
                self._hold_refs(other)
        if bad is not None:
            node.pending += 1
        return bad

    def wait_again(self, node: Node, others: Sequence[Node], again: Mapping[int, Node]) -> tuple[Node, ...]:
        """Make a waiting node wait for those of its ended sources, or promises, that are unfinished `again`, by key.

        Returns the same nodes as they are now.
        """
        now = tuple([again.get(other.key, other) for other in others])
        before = [other for other, new in zip(others, now, strict=True) if other is not new]
        self._let_go(before)
        self.edges -= len(before)
        self.wait_for(node, [again[other.key] for other in before])
        return now

    def settle(self, node: Node, bad: Node | None) -> None:
        """What follows for a WAITING or RESOLVING node from what it waits for."""
        if bad is not None:
            self.end_badly(node, bad.state, bad.culprit or bad)
        elif node.pending:
            return
        elif node.state is WAITING:
            self._make_ready(node)
        else:
            self._resolve(node)
            self._tell([node])

    def _hold_refs(self, ended: Node) -> None:
        """A value that is read needs those that it names, and they those that they name."""
        stack = [ended]
        while stack:
            for ref in stack.pop().refs:
                ref.readers += 1
                if ref.refs and ref.readers == 1:
                    stack.append(ref)

    def _unread(self, ended: Node) -> None:
        """No unfinished node will be given its value any more, nor, through it, those that it names."""
        stack = [ended]
        while stack:
            other = stack.pop()
            self.effects.unread.append(other.key)
            for ref in other.refs:
                ref.readers -= 1
                if not ref.readers:
                    stack.append(ref)

    # --- ending ---------------------------------------------------------------------------------------

    def complete(self, node: Node, value: bytes, refs: tuple[Node, ...], large: Sequence[bytes] = ()) -> None:
        """Record the value of a node; where it names promises that are not kept, the node goes on waiting for them."""
        bad = None
        if refs:
            node.refs = refs
            self._record_links(node.instance, refs)
            node.tolerates = NONE  # a failure may stand for an argument, not for a part of the result
            bad = self.wait_for(node, refs)
        if large:
            self.changes.large += [LargeRow(node.key, sha256) for sha256 in large]
        self.move(node, COMPLETED if not node.pending and bad is None else RESOLVING)
        self.changes.outcomes.append(
            OutcomeRow(node.key, int(node.state), node.attempt, pack_keys(refs), value, 0, None, self.now + self.wall)
        )
        if bad is not None:  # its value is kept: were it run again, so would be what it has made
            self.end_badly(node, bad.state, bad.culprit or bad)
        elif not node.pending:
            self._tell([node], LOOKED_AT)

    def _record_links(self, instance: Instance, refs: Iterable[Node]) -> None:
        """Instances that a value names are to be kept as long as its own, for their values and for their failures."""
        named = {ref.instance.key for ref in refs}
        named.discard(instance.key)
        self.changes.links += [LinkRow(instance.key, other) for other in sorted(named)]

    def _resolve(self, node: Node) -> None:
        self.move(node, COMPLETED)
        self.changes.resolved.append(ResolvedRow(node.key, int(COMPLETED), 0, self.now + self.wall))

    def end_badly(
        self, node: Node, state: State, culprit: Node, failure: bytes | None = None, tally: Tally | None = None
    ) -> None:
        """Fail or cancel a node, and with it every descendant."""
        node.culprit = None if culprit is node else culprit
        self._record_bad_end(node, state, failure)
        if tally is not None:
            tally.count += 1
        self._tell([node], tally=tally)

    def _record_bad_end(self, node: Node, state: State, failure: bytes | None) -> None:
        resolving = node.state is RESOLVING
        self.move(node, state)
        if not node.instance.failed:
            node.instance.failed = True
            self.changes.instance_ends.append(InstanceEnd(node.instance.key, None, True))
        culprit, ended = (node.culprit or node).key, self.now + self.wall
        if resolving:
            self.changes.resolved.append(ResolvedRow(node.key, int(state), culprit, ended))
        else:
            self.changes.outcomes.append(
                OutcomeRow(node.key, int(state), node.attempt, b"", None, culprit, failure, ended)
            )

    def _tell(self, ended: list[Node], least: int = 0, tally: Tally | None = None) -> None:
        """Tell the dependents of nodes that have ended, and theirs, in turn.

        What this step may not do any more is put off, but for the first `least` dependents of the first node.
        """
        while ended:
            node = ended.pop()
            dependents, node.dependents = node.dependents, None
            self._forget(node)
            if dependents:
                self._tell_dependents(_Untold(node, dependents, 0, tally), least, ended)
            least = 0

    def _tell_dependents(self, untold: _Untold, least: int, ended: list[Node]) -> None:
        node, dependents, at, tally = untold
        end = at + max(self.left, least)
        if end < len(dependents):
            if tally is not None:
                tally.open += 1
            self.untold.append(_Untold(node, dependents, max(at, end), tally))
            dependents = dependents[at:end]
        elif at:
            dependents = dependents[at:]
        self.left -= len(dependents)
        if node.state is COMPLETED:
            self._one_less(dependents, ended)
        else:
            before = len(ended)
            self._fail_all(dependents, node, ended)
            if tally is not None:
                tally.count += len(ended) - before

    def go_on(self) -> bool:
        """Do some of what earlier steps have put off. Return whether there is more."""
        while self.starting and self.left > 0:
            most = self.left
            started = self.starting[0].start(most)
            self.left -= started
            if started < most:
                self.starting.popleft()
        while self.untold and self.left > 0:
            untold = self.untold.popleft()
            ended: list[Node] = []
            if untold.tally is not None:
                untold.tally.open -= 1
            self._tell_dependents(untold, 0, ended)
            self._tell(ended, tally=untold.tally)
        return bool(self.starting or self.untold)

    def finish(self) -> None:
        """Do all of it."""
        while self.starting or self.untold:
            self.left = STEP
            self.go_on()

    def _one_less(self, dependents: list[Node], ended: list[Node]) -> None:
        for dependent in dependents:
            dependent.pending -= 1
            if dependent.pending or dependent.state in ENDED or dependent.state is CLAIMED:
                continue
            if dependent.state is WAITING:
                self._make_ready(dependent)
            else:
                self._resolve(dependent)
                ended.append(dependent)

    def _fail_all(self, dependents: list[Node], failed: Node, ended: list[Node]) -> None:
        """They fail, or are cancelled, as it was; who tolerates it has one source less to wait for."""
        for dependent in dependents:
            if dependent.state in ENDED:
                continue
            if failed.key in dependent.tolerates and dependent.state is WAITING:
                self._one_less([dependent], ended)
            else:
                dependent.culprit = failed.culprit or failed
                self._record_bad_end(dependent, failed.state, None)
                ended.append(dependent)

    def _forget(self, node: Node) -> None:
        """The node has ended: it leaves memory, but for those that hold on to it."""
        del self.nodes[node.key]
        if node.pending != UNSTARTED:
            self.edges -= len(node.sources) + len(node.refs)
        if node.lane.key:
            self._leave_keyed(node.lane)
        if self.made_with:
            self.made_with.pop(node.key, None)
            self.adoptions.pop(node.key, None)
        if node.trouble is not None:
            self.keep_failure(node.trouble, None)
            node.trouble = None
        self.effects.ended.append(node)
        if self.noticed is not None:
            self.noticed.append(_noticed(node))
        if node.sources:
            if node.pending != UNSTARTED:
                self._let_go(node.sources)
            node.sources = ()
        if node.refs and node.state is not COMPLETED:
            self._let_go(node.refs)
            node.refs = ()  # nobody will read what they were to be part of
        elif node.refs and not node.readers:
            self._let_go(node.refs)
        instance = node.instance
        instance.live -= 1
        if not instance.live:
            self.changes.instance_ends.append(InstanceEnd(instance.key, self.now + self.wall, instance.failed))
            self._forget_instance(instance)

    def _let_go(self, others: Iterable[Node]) -> None:
        """An ended node needs the values of these no more."""
        for other in others:
            other.readers -= 1
            # One that is yet to be forgotten, having ended of the same cause, lets go of what it names by itself.
            if not other.readers and other.state in ENDED and self.nodes.get(other.key) is not other:
                self._unread(other)

    # --- trouble --------------------------------------------------------------------------------------

    def trouble(self, node: Node) -> Trouble:
        if node.trouble is None:
            node.trouble = Trouble()
        return node.trouble

    def keep_failure(self, trouble: Trouble, failure: bytes | None) -> None:
        """Remember the last failure of an unfinished node, or forget it."""
        self.failures_size += len(failure or b"") - len(trouble.failure or b"")
        trouble.failure = failure

    def record_trouble(self, node: Node) -> None:
        trouble = node.trouble
        assert trouble is not None
        retry_at = trouble.retry_at + self.wall if trouble.retry_at else 0.0
        self.changes.progress.append(
            ProgressRow(
                node.key, trouble.runs, trouble.deaths, trouble.lost, retry_at, trouble.failure, trouble.pause,
                node.attempt, trouble.lost_attempt,
            )
        )
