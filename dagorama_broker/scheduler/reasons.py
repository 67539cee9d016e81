"""Explains why one node is not running, by the predicates that grant nodes. Nothing is changed here.

The rule: `next` is the only reason of a queued node if and only if the next step grants it. After a step, no queued
node has only that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from math import inf
from typing import NamedTuple

from dagorama_broker.model.delays import AT_ONCE
from dagorama_broker.model.domain import ENDED, WireProtocol
from dagorama_broker.model.key_pauses import seconds_text
from dagorama_broker.model.signals import WaitRow
from dagorama_broker.scheduler.assignment import has_room, stale_at
from dagorama_broker.scheduler.claims import Claims
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.mailboxes import kept_text
from dagorama_broker.scheduler.mismatch import Mismatch, ReasonCode
from dagorama_broker.scheduler.objects import UNSTARTED, Node, Pool, Slot, Worker
from dagorama_broker.scheduler.obstacles import MOST, Explainer, awaited
from dagorama_broker.scheduler.offers import NO_WORKERS, paused_text
from dagorama_broker.scheduler.queues import FunctionQueue, QueueGate, order
from dagorama_broker.scheduler.starts import gates_of
from dagorama_broker.scheduler.transitions import BACKOFF, CLAIMED, RESOLVING, WAITING

#: Causes that are returned.
MOST_CAUSES = 5
#: Nodes that a reason names.
MOST_NAMED = 5
#: Reasons that leave a queued node to be granted by the next step.
NOT_BLOCKING = frozenset({ReasonCode.BEHIND, ReasonCode.NEXT})


class Reason(NamedTuple):
    """One reason why a node is not running."""

    code: ReasonCode
    text: str  #: a sentence without a period
    about: int = 0  #: number of nodes, or workers, that it is about
    nodes: tuple[Node, ...] = ()  #: some of these nodes
    until: float = 0.0  #: the scheduler's clock: when it ends by itself; 0: that is not known


class Cause(NamedTuple):
    """Nodes that others wait for, and why they have not ended; all for the same reasons."""

    node: Node  #: one of them
    nodes: int
    reasons: list[Reason]


class Causes(NamedTuple):
    """The causes for which nodes have not ended."""

    largest: list[Cause]  #: at most MOST_CAUSES, most nodes first
    left_out: int  #: number of causes that are not among these
    complete: bool  #: all nodes that they wait for were looked at


class Situation(NamedTuple):
    """The circumstances that grants depend on, in addition to nodes and workers."""

    now: float
    returning: int = 0  #: workers that the broker waits for after a restart; 0: it waits for none
    returning_until: float = 0.0


def reasons_of(claims: Claims, node: Node, situation: Situation) -> list[Reason]:
    """Return why an unfinished node is not running, or where it runs."""
    if node.state is WAITING and node.wait is not None and node.pending != UNSTARTED:
        return [_signal(node, node.wait, claims.graph)]
    if node.state is WAITING or node.state is RESOLVING:
        return [_missing(node)]
    if node.state is BACKOFF:
        return [_pause(node, claims.graph.wall)]
    if node.state is CLAIMED:
        return [_claim(node)]
    return list(_queued(claims, node, situation))


def causes_of(claims: Claims, nodes: Iterable[Node], situation: Situation) -> Causes:
    """Return the causes for which these nodes have not ended."""
    ends, complete = Explainer(claims).ends(nodes)
    groups: dict[tuple[object, ...], list[Node]] = {}
    for node in ends:
        groups.setdefault((node.queue.number, node.state, node.slot is None), []).append(node)
    largest = sorted(groups.values(), key=len, reverse=True)[:MOST_CAUSES]
    causes = [Cause(group[0], len(group), reasons_of(claims, group[0], situation)) for group in largest]
    return Causes(causes, len(groups) - len(causes), complete)


# --- by state -------------------------------------------------------------------------------------------


def _are(count: int, what: str) -> str:
    return f"{count} {what} {'has' if count == 1 else 'have'}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _signal(node: Node, wait: WaitRow, graph: Graph) -> Reason:
    text = f"it waits for the signal {wait.name!r}, which `dagorama send INSTANCE {wait.name} JSON` sends"
    if wait.until:
        what = "takes its default" if wait.has_default else "fails"
        text = f"{text}; without it, it {what} after {wait.timeout:g} s"
    kept = kept_text(graph.mail.kept_of(node.instance.key), wait)
    until = wait.until - graph.wall if wait.until else 0.0
    return Reason(ReasonCode.SIGNAL, f"{text}; {kept}" if kept else text, until=until)


def _missing(node: Node) -> Reason:
    if node.pending == UNSTARTED:
        return Reason(ReasonCode.STARTING, "the large call that created it is not finished", 1)
    if node.twin is not None and node.twin.state not in ENDED:
        text = "it waits for a node that computes the same, whose value it then has (cache)"
        return Reason(ReasonCode.COMPUTED_ELSEWHERE, text, 1, (node.twin,))
    if node.state is WAITING:
        code, text = ReasonCode.MISSING_SOURCE, _are(node.pending, f"of its {len(node.sources)} sources")
    else:
        code, text = ReasonCode.RETURNED_PROMISES, _are(node.pending, "of their nodes")
        text = f"it has returned promises, and {text}"
    missing = (other for other in islice(awaited(node), MOST) if other.state not in ENDED)
    return Reason(code, f"{text} not ended", node.pending, tuple(islice(missing, MOST_NAMED)))


def _pause(node: Node, wall: float) -> Reason:
    failures, delay = node.failures, node.delay or AT_ONCE
    assert failures is not None
    tried, of_function = failures.attempts, node.queue.function.delay
    if failures.note or not (tried or of_function or node.delay):
        why = f": {failures.note}" if failures.note else ""  # a restart of the broker forgets it
        text = f"its worker returned it, and it is granted again soon{why}"
        return Reason(ReasonCode.BACKOFF, text, tried, until=failures.retry_at)
    if not tried:
        text = delay.reason(of_function, failures.retry_at + wall)
        return Reason(ReasonCode.DELAY, text, until=failures.retry_at)
    policy = node.queue.function.retry
    of = f" of {policy.max_attempts}" if policy is not None and failures.failed_attempts else ""
    return Reason(ReasonCode.BACKOFF, f"attempt {tried}{of} failed, and it is retried", tried, until=failures.retry_at)


def _claim(node: Node) -> Reason:
    assert node.slot is not None
    name, held = node.slot.worker.info.name, node.slot.held
    if node.pending:
        sources = tuple(source for source in node.sources if source.state not in ENDED)
        text = f"{name} holds it together with its source, and runs it next"
        return Reason(ReasonCode.WITH_SOURCE, text, 1, sources[:MOST_NAMED])
    ahead = [other for other, _ in held.values()]
    ahead = ahead[: ahead.index(node)]
    if ahead and not node.queue.is_async:
        text = f"{name} holds it, behind {_many(len(ahead), 'other node')} in the same process"
        return Reason(ReasonCode.BEHIND_RUNNING, text, len(ahead), tuple(ahead[:MOST_NAMED]))
    return Reason(ReasonCode.RUNNING, f"{name} runs it", 1)


# --- queued nodes ---------------------------------------------------------------------------------------


def _queued(claims: Claims, node: Node, situation: Situation) -> Iterator[Reason]:
    queue = node.queue
    pools = [pool for pool in claims.pools.of(queue.function.protocol) if pool.may_run(queue)]
    if situation.returning:
        text = f"after its restart the broker waits for {_many(situation.returning, 'worker')} to return"
        yield Reason(ReasonCode.RETURNING_WORKERS, text, situation.returning, until=situation.returning_until)
    paused = claims.graph.paused.get(queue.function.queue)
    if paused is not None:
        yield Reason(ReasonCode.PAUSED, paused_text(paused))
    if not pools:
        yield from _mismatches(claims, queue)
        return
    yield from _closed(claims, queue)
    if queue.limit and queue.claimed >= queue.limit:
        yield _limit(claims, queue)
    elif queue.function.protocol is WireProtocol.LEGACY:
        yield Reason(ReasonCode.ASKED_FOR, "workers of dagorama 0.1.10 ask for nodes, one at a time")
    elif not _has_room(pools, queue, situation.now):
        yield _busy(pools, situation.now)
    ahead = _ahead(claims, pools, node)
    if ahead:
        what = f"about {_many(ahead, 'older node')} {'goes' if ahead == 1 else 'go'} first"
        yield Reason(ReasonCode.BEHIND, _turn(node, ahead) or what, ahead)
    else:
        yield Reason(ReasonCode.NEXT, "no older node is queued for the workers that may run it")


def _turn(node: Node, ahead: int) -> str:
    """Return how many nodes go first if fair keys decide about it; empty: only age and priority do."""
    instance = node.instance
    if not instance.line.shares:
        return ""
    text = f"about {_many(ahead, 'node')} {'goes' if ahead == 1 else 'go'} first: fair keys take turns, and"
    whose = f"the key {instance.fair!r} is" if instance.fair else "the instances without a key are"
    turns = instance.turn - instance.line.reached
    return f"{text} {whose} {f'{turns} turns away' if turns > 1 else 'next'}"


def _mismatches(claims: Claims, queue: FunctionQueue) -> Iterator[Reason]:
    """Yield why each connected worker may not run it, one reason for all with the same."""
    protocol = queue.function.protocol
    workers = claims.workers_of(protocol)
    if not workers:
        yield Reason(ReasonCode.NO_WORKERS, NO_WORKERS[protocol])
    found: Counter[Mismatch] = Counter(claims.mismatch(worker, queue) for worker in workers)
    for each, count in found.most_common():
        who = "the only connected worker" if len(workers) == 1 else f"{count} of {len(workers)} connected workers"
        yield Reason(each.code, f"{who} may not run it: {each.text}", count)


def _limit(claims: Claims, queue: FunctionQueue) -> Reason:
    running = [node for node in islice(claims.claimed.values(), MOST) if node.queue is queue]
    of = f" with the key {queue.key!r}" if queue.key else ""
    run = f"{_many(queue.claimed, 'node')} of its function{of} {'runs' if queue.claimed == 1 else 'run'}"
    text = f"{run}, which is its limit (max_concurrency={queue.limit})"
    return Reason(ReasonCode.LIMIT, text, queue.claimed, tuple(running[:MOST_NAMED]))


def _closed(claims: Claims, queue: FunctionQueue) -> Iterator[Reason]:
    """Yield why pauses of its key, rates and shared limits let none of these nodes start now."""
    pauses, now = claims.graph.key_pauses, claims.graph.now
    for what in pauses.held(queue):
        until, asked_by = pauses.end_of(what), claims.graph.nodes.get(pauses.rows[what].node)
        yield Reason(ReasonCode.KEY_PAUSED, what.reason(until - now), 1, (asked_by,) if asked_by else (), until)
    for gate in gates_of(queue):
        yield from _closed_gate(claims, gate, now)


def _closed_gate(claims: Claims, gate: QueueGate, now: float) -> Iterator[Reason]:
    """Yield why a gate lets nothing through now."""
    is_shared = gate is claims.graph.rates.shared.get(gate.name)
    what = f"the limit {gate.name!r}" if is_shared else "its function"
    declared = f", as {gate.declared_by} declares" if is_shared else ""
    if gate.max_concurrency and gate.claimed >= gate.max_concurrency:
        running = [node for node in islice(claims.claimed.values(), MOST) if gate in node.queue.base.gates]
        text = f"{_many(gate.claimed, 'node')} of {what} {'runs' if gate.claimed == 1 else 'run'}, with any key"
        text = f"{text}, which is as many as it allows (max_concurrency={gate.max_concurrency}{declared})"
        yield Reason(ReasonCode.LIMIT, text, gate.claimed, tuple(running[:MOST_NAMED]))
    if gate.is_used_up:
        yield _used_up(gate, now, f" of {what}{declared}," if is_shared else "")


def _used_up(gate: QueueGate, now: float, of: str) -> Reason:
    assert gate.rate is not None
    of = f" for the key {gate.key!r}" if gate.key else of
    text = f"the rate of {gate.rate.starts:,} per {gate.rate.seconds:g} s{of} is used up"
    if gate.filled_at is not None:
        text += " (the broker was started a short time ago, and does not know what was started before)"
    if (until := gate.next_start()) == inf:
        return Reason(ReasonCode.RATE, f"{text} by nodes that wait in busy processes", gate.held)
    text += f"; its next start is in {seconds_text(until - now)} s"
    return Reason(ReasonCode.RATE, text, gate.used + gate.held, until=until)


def _open_slots(pools: Collection[Pool]) -> Iterator[Slot]:
    for pool in pools:
        for worker in pool.workers.values():
            yield from (slot for slot in worker.slots if not slot.closed)


def _has_room(pools: Collection[Pool], queue: FunctionQueue, now: float) -> bool:
    listed = (slot for pool in pools for slot in (*pool.idle, *pool.partially_free))
    return any(has_room(slot, queue) and now < stale_at(slot) for slot in listed)


def _busy(pools: Collection[Pool], now: float) -> Reason:
    slots, workers = list(_open_slots(pools)), set[Worker]()
    for pool in pools:
        workers.update(pool.workers.values())
    running = [next(iter(slot.held.values()))[0] for slot in slots if slot.held]
    longest = max((now - slot.progress_at for slot in slots if slot.held), default=0.0)
    what = "process is" if len(slots) == 1 else "processes are"
    text = f"{len(slots)} {what} busy on {_many(len(workers), 'worker')} that may run it"
    text += f"; the longest run takes {seconds_text(longest)} s so far"
    return Reason(ReasonCode.BUSY, text, len(slots), tuple(running[:MOST_NAMED]))


def _ahead(claims: Claims, pools: Collection[Pool], node: Node) -> int:
    """Return how many nodes before it are queued that one of these pools may run, including some that have left."""
    place = order(node.instance.rank, node.key, node.queue.function.priority)
    queues = [*claims.graph.active.values(), *claims.graph.keyed.values()]
    claimable = (queue for queue in queues if queue.available > 0 and not queue.base.is_closed)
    fitting = (queue for queue in claimable if any(pool.may_run(queue) for pool in pools))
    return sum(queue.ahead_of(place) for queue in fitting)


def closed_reason(claims: Claims, queue: FunctionQueue) -> str | None:
    """Return which limit lets none of these nodes start now; None: none of its limits, rates and pauses does."""
    return next((reason.text for reason in _closed(claims, queue)), None)


def is_blocked(reasons: Iterable[Reason]) -> bool:
    """Return whether a queued node with these reasons cannot be granted now, however old it is."""
    return any(reason.code not in NOT_BLOCKING for reason in reasons)
