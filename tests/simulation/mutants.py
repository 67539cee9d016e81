"""Faults that real brokers have had, one at a time: each a small patch of the scheduler or of the writer, by name."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dagorama.values import rebind as client_rebind
from dagorama_broker.engine import ahead
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.cancellation import Cancellation
from dagorama_broker.engine.clock import advance_clock
from dagorama_broker.engine.commits import Commits
from dagorama_broker.engine.drafts import Drafts
from dagorama_broker.engine.loading import Loading
from dagorama_broker.engine.proofs import Proofs
from dagorama_broker.engine.sessions import Sessions
from dagorama_broker.engine.waiters import Waiters
from dagorama_broker.engine.worker_session import Session
from dagorama_broker.errors import Unavailable
from dagorama_broker.model.delays import NodeDelay
from dagorama_broker.model.domain import ENDED, State
from dagorama_broker.rpc import work, work_messages
from dagorama_broker.rpc.grants import GrantBuilder
from dagorama_broker.rpc.wait_messages import WaitMessages
from dagorama_broker.rpc.work import WorkerStreams
from dagorama_broker.scheduler import (
    Node,
    Scheduler,
    Slot,
    Worker,
    assignment,
    caching,
    rebind,
    restore,
    states,
    workers,
)
from dagorama_broker.scheduler.caching import Caching
from dagorama_broker.scheduler.claims import Claims
from dagorama_broker.scheduler.drafts import Draft
from dagorama_broker.scheduler.gates import ANY, Gate
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.hits import Hits
from dagorama_broker.scheduler.places import KEY_MASK, Places
from dagorama_broker.scheduler.queues import FunctionQueue
from dagorama_broker.scheduler.queues import order as right_order
from dagorama_broker.scheduler.rates import Rates
from dagorama_broker.scheduler.staged_children import StagedChildren
from dagorama_broker.scheduler.submission import SubmissionPlan
from dagorama_broker.scheduler.turns import Line

#: Owner and name of what is replaced, and what comes in its place, made from what was there.
Patch = tuple[Any, str, Callable[[Any], Any]]
MUTANTS: dict[str, list[Patch]] = {}


def mutant(name: str, *where: tuple[Any, str]) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    def register(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        MUTANTS[name] = [(owner, attribute, make) for owner, attribute in where]
        return make

    return register


def _defines(owner: Any, attribute: str) -> Any:
    """A module, or the class among a class and its bases that defines this attribute. Raises AttributeError."""
    for each in getattr(owner, "__mro__", [owner]):
        if attribute in vars(each):
            return each
    raise AttributeError(f"{owner.__name__} has no {attribute}")


@contextmanager
def broken(name: str) -> Iterator[None]:
    """With this fault in the product."""
    owners = [(_defines(owner, attribute), attribute) for owner, attribute, _ in MUTANTS[name]]
    kept = [(owner, attribute, vars(owner)[attribute]) for owner, attribute in owners]
    for (owner, attribute, before), (_, _, make) in zip(kept, MUTANTS[name], strict=True):
        setattr(owner, attribute, make(before))
    try:
        yield
    finally:
        for owner, attribute, before in kept:
            setattr(owner, attribute, before)


# --- attempts and workers -----------------------------------------------------------------------------


@mutant("fencing removed", (Claims, "held"))
def _(held: Any) -> Any:
    def any_worker(self: Claims, worker: Worker, key: int, attempt: int) -> Any:
        node = self.graph.nodes.get(key)
        return node if node is not None and node.slot is not None else None

    return any_worker


@mutant("attempt reused after a restart", (Claims, "__init__"))
def _(init: Any) -> Any:
    return lambda self, graph, epoch: init(self, graph, 1)


@mutant("reconnect reclaims a node granted since", (Claims, "may_reclaim"))
def _(may_reclaim: Any) -> Any:
    return lambda self, node, attempt, protocol: node.slot is not None or node.state is State.QUEUED


@mutant("attempts are believed without a proof", (WorkerStreams, "_proven"))
def _(proven: Any) -> Any:
    return lambda self, hello: set(zip(hello.held_node, hello.held_attempt, strict=True))


@mutant("a proof is as good for another worker", (Proofs, "of"))
def _(of: Any) -> Any:
    return lambda self, worker, nodes, attempts: of(self, bytes(16), nodes, attempts)


@mutant("a worker's secret is not compared with its ID", (work, "check_secret"))
def _(check: Any) -> Any:
    return lambda worker, secret: None


@mutant("an ID without a secret replaces a connected worker", (Scheduler, "connect"))
def _(connect: Any) -> Any:
    return lambda self, presence, held, now: connect(self, replace(presence, is_proven=True), held, now)


@mutant("a loss is not taken back", (Scheduler, "_take_back_loss"))
def _(take_back: Any) -> Any:
    return lambda self, node, attempt: None


@mutant("a loss is taken back that was not counted", (Scheduler, "_take_back_loss"))
def _(take_back: Any) -> Any:
    def always(self: Scheduler, node: Any, attempt: int) -> None:
        if node.failures is not None:
            node.failures.lost_attempt = attempt
        take_back(self, node, attempt)

    return always


@mutant("lease that never expires", (Claims, "silent"))
def _(silent: Any) -> Any:
    def patient(self: Claims, now: float) -> list[Worker]:
        for _, _, worker in self.leases:
            worker.heard_at = max(worker.heard_at, now - 0.1)
        return silent(self, now)  # type: ignore[no-any-return]

    return patient


@mutant("forgiveness missing", (Scheduler, "_forgive"))
def _(forgive: Any) -> Any:
    return lambda self, now: None


@mutant("nothing held back after a restart", (Scheduler, "restore"))
def _(restore: Any) -> Any:
    def at_once(self: Scheduler, live: Any, now: float, wall: float) -> None:
        restore(self, live, now, wall)
        self.awaited, self.dispatch_paused_until = set(), None

    return at_once


@mutant("death not counted", (Scheduler, "died"))
def _(died: Any) -> Any:
    def uncounted(self: Scheduler, worker: Worker, running: Any, unstarted: Any, cause: str, now: float) -> None:
        for attempt in running:
            if (node := self.claims.claimed.get(attempt)) is not None:
                self.graph.trouble(node).crashes = 0
        died(self, worker, running, unstarted, cause, now)

    return uncounted


@mutant("death counted against who only waited", (Scheduler, "died"))
def _(died: Any) -> Any:
    return lambda self, worker, running, unstarted, cause, now: died(
        self, worker, [*running, *unstarted], [], cause, now
    )


@mutant("lost worker counted as a death", (Scheduler, "disconnect"))
def _(disconnect: Any) -> Any:
    def counted(self: Scheduler, worker: Worker, now: float, **how: Any) -> None:
        if self.claims.workers.get(worker.info.id) is worker:
            for slot in worker.slots:
                self.died(worker, list(slot.held), [], "the connection broke", now)
        disconnect(self, worker, now, **how)

    return counted


@mutant("what is given back is forgotten", (Scheduler, "give_back"))
def _(give_back: Any) -> Any:
    def forgotten(self: Scheduler, worker: Worker, key: int, attempt: int, *rest: Any) -> bool:
        node = self.claims.held(worker, key, attempt)
        if node is not None:
            self.claims.take_out(node)
        return node is not None

    return forgotten


# --- order and limits -----------------------------------------------------------------------------------


@mutant("FIFO tie random", (FunctionQueue, "pop"))
def _(pop: Any) -> Any:
    def any_of_them(self: FunctionQueue) -> int:
        if len(self) == self.ready > 1 and not self._late:
            places = [place for run in self._ranges() for place in range(*run)]
            chosen = places.pop(random.randrange(len(places)))
            Places.clear(self)
            for place in places:
                self.push(place)
            return chosen & KEY_MASK
        return int(pop(self))

    return any_of_them


@mutant("priority inverted", (states, "order"), (assignment, "order"))
def _(order: Any) -> Any:
    return lambda instance, key, priority=0: right_order(instance, key, -priority)


@mutant("younger instances first", (states, "order"), (assignment, "order"))
def _(order: Any) -> Any:
    return lambda instance, key, priority=0: right_order((1 << 40) - instance, key, priority)


@mutant("taint taken from the queue", (Worker, "mismatch"))
def _(why_not: Any) -> Any:
    def by_queue(self: Worker, queue: FunctionQueue) -> str | None:
        taint = queue.function.taint if queue.function.taint == "TPU" else ""
        taint = "GPU" if queue.function.queue == "gpu" else taint
        function = replace(queue.function, taint=taint)
        return why_not(self, FunctionQueue(queue.id, function))  # type: ignore[no-any-return]  # the original

    return by_queue


@mutant("max_concurrency ignored", (FunctionQueue, "available"))
def _(available: Any) -> Any:
    return property(lambda self: self.ready)


@mutant("max_concurrency slot leaked", (Graph, "move"))
def _(move: Any) -> Any:
    def leaking(self: Graph, node: Any, state: State) -> None:
        before = node.state
        move(self, node, state)
        if before is State.CLAIMED and state is State.FAILED:
            node.queue.claimed += 1

    return leaking


@mutant("rate ignored", (Gate, "room"))
def _(room: Any) -> Any:
    return property(lambda self: max(0, self.max_concurrency - self.claimed) if self.max_concurrency else ANY)


@mutant("a start counts for half its time", (Gate, "_end"))
def _(end: Any) -> Any:
    return lambda self, span: (span.last + end(self, span)) / 2


@mutant("starts forgotten on restart", (Rates, "fill"))
def _(fill: Any) -> Any:
    return lambda self, now: None


@mutant("delay ignored", (Graph, "_make_ready"))
def _(make_ready: Any) -> Any:
    return lambda self, node: self.queue(node)


@mutant("delay of a call ignored", (NodeDelay, "pause"))
def _(pause: Any) -> Any:
    return lambda self, of_function, time: of_function


@mutant("delay of a call forgotten on restart", (restore, "_rebuild_nodes"))
def _(rebuild_nodes: Any) -> Any:
    def forgetting(graph: Graph, live: Any, blocks: Any, resolving: Any) -> Any:
        live.delays = {}
        return rebuild_nodes(graph, live, blocks, resolving)

    return forgetting


@mutant("queue_timeout ignored", (Graph, "expired"))
def _(expired: Any) -> Any:
    def unheeded(self: Graph, now: float) -> Iterator[Any]:
        list(expired(self, now))
        return iter(())

    return unheeded


# --- cached values ---------------------------------------------------------------------------------------


@mutant("a cached value is not found", (Caching, "find"))
def _(find: Any) -> Any:
    return lambda self, key, now: None


@mutant("the cached value of another key", (Caching, "find"))
def _(find: Any) -> Any:
    return lambda self, key, now: next(iter(self.entries.values()), None)


@mutant("a caller gets a value that another signing key vouches for", (Caching, "found_for_caller"))
def _(found_for_caller: Any) -> Any:
    def trusting(self: Caching, node: Node, now: float) -> Any:
        return self.find(self.keys[node.key], now) if node.key in self.announced else None

    return trusting


@mutant("a cached value under the name of another node", (Hits, "node_of"))
def _(node_of: Any) -> Any:
    return lambda self, row: node_of(self, next(iter(self.caching.entries.values()), row))


@mutant("a worker takes an announced cache key for its own", (GrantBuilder, "add_cached"))
def _(add_cached: Any) -> Any:
    return lambda self, found, announced: add_cached(self, found)


@mutant("two nodes compute the same at once", (caching, "_waits_for"))
def _(waits_for: Any) -> Any:
    return lambda leader, node: True


@mutant("cached values are forgotten on restart", (workers, "rebuild"))
def _(rebuild: Any) -> Any:
    def forgetting(graph: Graph, live: Any) -> Any:
        live.cached = []
        return rebuild(graph, live)


@mutant("turns forgotten on restart", (restore, "_rebuild_names"))
def _(rebuild_names: Any) -> Any:
    def forgetting(graph: Graph, live: Any) -> Any:
        live.turns = {}
        return rebuild_names(graph, live)

    return forgetting


@mutant("all of a key in one turn", (Line, "take"))
def _(take: Any) -> Any:
    def together(self: Line, instance: int, fair: str) -> int:
        turn: int = take(self, instance, fair)
        return turn if not self.shares else self.reached + 1

    return together


# --- retries ----------------------------------------------------------------------------------------------


@mutant("retry time lost on restart", (restore, "_pause_left"))
def _(pause_left: Any) -> Any:
    return lambda graph, node, row: 0.0


@mutant("retry forgotten on restart", (Scheduler, "restore"))
def _(restore: Any) -> Any:
    def forgetting(self: Scheduler, live: Any, now: float, wall: float) -> None:
        restore(self, live, now, wall)
        self.graph.pauses.clear()

    return forgetting


@mutant(
    "failed runs forgotten on restart",
    (restore, "rebuild"),
)
def _(rebuild: Any) -> Any:
    return rebuild


def _forget_failed_attempts(rebuild: Any) -> Any:
    def forgetting(graph: Graph, live: Any) -> Any:
        live.progress = [row._replace(failed_attempts=0) for row in live.progress]
        return rebuild(graph, live)

    return forgetting


# `workers` has the name too, and that is the one which is called.

MUTANTS["failed runs forgotten on restart"] = [(workers, "rebuild", _forget_failed_attempts)]


# --- rebindings --------------------------------------------------------------------------------------------


@mutant("a worker does not check what is signed", (client_rebind, "check_rebinding"))
def _(check: Any) -> Any:
    return lambda signed, wanted, ring: None


@mutant("a worker does not check what the signed rebinding is for", (client_rebind, "_why_not"))
def _(why_not: Any) -> Any:
    return lambda rebinding, wanted: ""


@mutant("nodes of other instances are rebound too", (Graph, "unfinished_of"))
def _(unfinished_of: Any) -> Any:
    return lambda self, instance: iter(list(self.nodes.values()))


@mutant("a rebinding stays where a later one was made", (rebind, "_change_code"))
def _(change_code: Any) -> Any:
    def first(graph: Graph, node: Any, hash: str, rebinding: Any, key_id: str) -> None:
        change_code(graph, node, hash, graph.rebindings.get(node.key, rebinding), key_id)

    return first


@mutant("a rebinding is not sent", (work_messages, "GrantBuilder"))
def _(builder: Any) -> Any:
    class Forgetful(builder):  # type: ignore[misc]  # a class that is only known when it runs
        def add(self, *arguments: Any) -> None:
            super().add(*arguments[:4])

    return Forgetful


@mutant("a rebinding is lost on restart", (restore, "queue_of_row"))
def _(lane_of_row: Any) -> Any:
    def losing(graph: Graph, rows: Any, key: int, function: int) -> Any:
        queue = lane_of_row(graph, rows, key, function)
        graph.rebindings.pop(key, None)
        return queue

    return losing


@mutant("nodes go over although nobody has signed for their code", (rebind, "_refuse_missing"))
def _(refuse_missing: Any) -> Any:
    return lambda names, *, has_some: None


# --- graphs -----------------------------------------------------------------------------------------------


@mutant("child visible early", (Scheduler, "stage"))
def _(stage: Any) -> Any:
    def early(self: Scheduler, worker: Worker, key: int, attempt: int, run: Any) -> bool:
        if not stage(self, worker, key, attempt, run):
            return False
        SubmissionPlan(self.graph, [run], {}).make()
        self.staged[attempt] = StagedChildren()
        return True

    return early


@mutant("staged children kept after a failure", (Scheduler, "_end_run"))
def _(end_run: Any) -> Any:
    return lambda self, node, now: self.claims.let_go(node, now)


@mutant("join fired twice", (Graph, "_make_ready"))
def _(make_ready: Any) -> Any:
    def twice(self: Graph, node: Any) -> None:
        make_ready(self, node)
        if len(node.sources) > 1 and node.state is State.QUEUED:
            self.move(node, State.CLAIMED)
            self.move(node, State.QUEUED)
            node.queue.push(right_order(node.instance.key, node.key, node.queue.function.priority))

    return twice


@mutant("join fired early", (Graph, "wait_for"))
def _(wait_for: Any) -> Any:
    def early(self: Graph, node: Any, others: Any) -> Any:
        bad = wait_for(self, node, others)
        if node.pending > 2:
            node.pending -= 1
        return bad

    return early


@mutant("failure does not reach a descendant", (Graph, "_fail_all"))
def _(fail_all: Any) -> Any:
    return lambda self, dependents, failed, ended: fail_all(self, dependents[:1], failed, ended)


@mutant("a failed source goes unseen by who comes later", (Graph, "start"))
def _(start: Any) -> Any:
    def unseeing(self: Graph, node: Any) -> None:
        self.wait_for(node, node.sources)
        self.settle(node, None)

    return unseeing


@mutant("tolerated failure treated as failure", (Graph, "_fail_all"))
def _(fail_all: Any) -> Any:
    def intolerant(self: Graph, dependents: Any, failed: Any, ended: Any) -> None:
        for dependent in dependents:
            if dependent.state not in ENDED:
                dependent.root_cause = failed.root_cause
                self._record_bad_end(dependent, failed.state, None)
                ended.append(dependent)

    return intolerant


@mutant("tolerance spreads to returned promises", (Graph, "complete"))
def _(complete: Any) -> Any:
    def spread(self: Graph, node: Any, value: bytes, refs: Any, *rest: Any) -> None:
        failed = next((ref for ref in refs if ref.key in node.tolerates and ref.state in ENDED), None)
        if failed is not None and failed.state is not State.COMPLETED:
            refs = ()
        complete(self, node, value, refs, *rest)

    return spread


@mutant("promises of a value are not followed", (work_messages, "_needed"))
def _(needed: Any) -> Any:
    return lambda node: list(dict.fromkeys(node.sources))


@mutant("promises of a value are not sent to waiters", (WaitMessages, "_with_named"))
def _(with_named: Any) -> Any:
    async def themselves(self: WaitMessages, nodes: Any) -> Any:
        return list(nodes)

    return themselves


@mutant("a value's readers are miscounted", (Graph, "_hold_refs"))
def _(hold_refs: Any) -> Any:
    return lambda self, ended: None


@mutant("a value is never let go", (Graph, "_let_go"))
def _(let_go: Any) -> Any:
    return lambda self, others: None


# --- the writer ---------------------------------------------------------------------------------------------


@mutant("acknowledge before commit", (Broker, "_commit"))
def _(commit: Any) -> Any:
    async def early(self: Broker, changes: Any) -> None:
        asyncio.get_running_loop().create_task(commit(self, changes))

    return early


@mutant("a key is used again after a crash", (workers, "KEYS_LEFT_OUT"))
def _(left_out: Any) -> Any:
    return 0


@mutant("a child is granted before the commit that makes it", (ahead, "first_child"))
def _(first_child: Any) -> Any:
    return lambda changes: 1 << 63


@mutant("a value is read before its commit", (work_messages, "_values"))
def _(values: Any) -> Any:
    async def at_once(broker: Broker, nodes: Any) -> Any:
        if all(node.state is State.COMPLETED for node in nodes):
            return await broker.payloads.values.get(node.key for node in nodes)
        return await values(broker, nodes)

    return at_once


@mutant("told before the commit", (Broker, "_step"))
def _(step: Any) -> Any:
    async def early(self: Broker) -> None:
        drain = self.scheduler.drain

        def tell_first() -> Any:
            changes, effects = drain()
            self.watching.tell(effects.ended)
            return changes, effects

        self.scheduler.drain = tell_first  # type: ignore[method-assign]
        try:
            await step(self)
        finally:
            self.scheduler.drain = drain  # type: ignore[method-assign]

    return early


@mutant("a report is acknowledged that has only staged", (Session, "settled"))
def _(settled: Any) -> Any:
    return lambda self, staged: self.heard_last


@mutant("lost wake-up of the writer", (Commits, "mark_changed"))
def _(touch: Any) -> Any:
    def silent(self: Commits) -> None:
        if self.stopping:
            raise Unavailable("the broker is shutting down")

    return silent


@mutant("lost wake-up of a worker", (Sessions, "_send"))
def _(send: Any) -> Any:
    return lambda self, told: send(self, list(told)[:1])


@mutant("lost wake-up of a waiter", (Waiters, "tell"))
def _(tell: Any) -> Any:
    return lambda self, ended: tell(self, list(ended)[:1])


@mutant("cancel forgotten: who runs it is not told", (Broker, "_tell"))
def _(tell: Any) -> Any:
    def forgetting(self: Broker, effects: Any, grants: Any) -> None:
        effects.cancelled = []
        tell(self, effects, grants)

    return forgetting


@mutant("cancel forgotten: answered before it is durable", (Cancellation, "cancel"))
def _(cancel: Any) -> Any:
    async def unheard(self: Cancellation, instance: bytes, ids: Any, by: str) -> int:
        nodes = await self._live(instance, ids) if ids else await self._all(instance)
        return self._scheduler.cancel(nodes, advance_clock(self._scheduler, self._commits.clock))

    return unheard


@mutant("cancel forgotten: descendants live on", (Scheduler, "cancel"))
def _(cancel: Any) -> Any:
    def shallow(self: Scheduler, nodes: Any, now: float, tally: Any = None) -> int:
        nodes = list(nodes)
        for node in nodes:
            for dependent in node.dependents or ():
                dependent.tolerates = dependent.tolerates | {node.key}
        return int(cancel(self, nodes, now, tally))

    return shallow


@mutant("duplicate submit makes two", (Loading, "left_to_make"))
def _(left_to_make: Any) -> Any:
    def doubled(self: Loading, runs: Any, found: Any) -> Any:
        left = left_to_make(self, runs, found)
        for run in runs:
            if run not in left and run.instance in self._scheduler.instances and not run.foreign:
                own = None if run.sources is None else [[r for r in refs if r >= run.first] for refs in run.sources]
                left.append(replace(run, origin=os.urandom(12), creates=None, digest=b"", sources=own, tolerant=None))
        return left

    return doubled


# --- large calls, and what is put off ------------------------------------------------------------------------


@mutant("a large call is answered before it is durable", (Drafts, "submit"))
def _(submit_many: Any) -> Any:
    async def early(self: Drafts, runs: Any) -> None:
        task = asyncio.ensure_future(submit_many(self, runs))
        while not task.done() and self._scheduler.is_settled:
            await asyncio.sleep(0.0005)
        if task.done():
            task.result()

    return early


@mutant("nodes of a large call are not all started", (Draft, "start"))
def _(start: Any) -> Any:
    def but_for_one(self: Draft, most: int) -> int:
        self._started += self._started == 1
        return int(start(self, most))

    return but_for_one


@mutant("a large call is made though it was given up", (Draft, "give_up"))
def _(give_up: Any) -> Any:
    return lambda self: self.carry_out(0) or iter(())


@mutant("dependents that are told later are forgotten", (Graph, "go_on"))
def _(go_on: Any) -> Any:
    def forgetful(self: Graph) -> bool:
        self.unnotified.clear()
        return bool(go_on(self))

    return forgetful


# --- what goes along with its source ------------------------------------------------------------------------


@mutant("what went along stands though its source has no value", (Claims, "unfuse"))
def _(void: Any) -> Any:
    return lambda self, source: []


@mutant("what went along with several sources stands though one of them has no value", (Claims, "claim_fused"))
def _(claim_fused: Any) -> Any:
    def with_one(self: Claims, slot: Slot, node: Node) -> int:
        self.fused[node.unfinished_sources[-1].attempt] = node
        return self.claim(slot, node)

    return with_one


@mutant("a node goes along with sources that another slot holds", (assignment.Assigner, "_holds_sources"))
def _(holds: Any) -> Any:
    def held_anywhere(self: assignment.Assigner, slot: Slot, node: Node, before: int) -> bool:
        others = [source for source in node.unfinished_sources if source.attempt in self.claims.fused]
        return not others and all(source.state is State.CLAIMED for source in node.unfinished_sources)

    return held_anywhere


@mutant("a node goes along with some of its sources", (assignment.Assigner, "_holds_sources"))
def _(holds: Any) -> Any:
    return lambda self, slot, node, before: (
        not any(source.attempt in self.claims.fused for source in node.unfinished_sources)
    )
