"""What is true of a heart after every step, whatever has happened to it."""

from __future__ import annotations

from collections import Counter

from dagorama_broker.model.domain import ENDED, EagerState, State, WireProtocol
from dagorama_broker.model.rows import unpack_keys
from dagorama_broker.scheduler import Node, Scheduler, Slot
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.objects import UNSTARTED
from dagorama_broker.scheduler.queues import FunctionQueue, order
from tests.support.driver import Heart


def check(heart: Heart) -> None:
    """After a step, all that was drained being in the ledger."""
    scheduler = heart.scheduler
    states_are_counted(scheduler)
    what_takes_memory_is_counted(scheduler)
    lanes_have_what_is_queued(scheduler)
    claims_are_held_once(scheduler)
    what_goes_along_is_with_its_source(scheduler)
    nobody_waits_for_what_has_ended(scheduler)
    readers_are_counted(scheduler)
    only_what_is_unfinished_is_in_memory(heart)
    pauses_have_their_end(scheduler)
    broods_have_their_attempt(heart)
    slots_are_where_they_belong(scheduler)
    what_was_adopted_is_on_record(heart)
    what_holds_an_old_failure_says_so(heart)
    if scheduler.dispatch_paused_until is None:
        nobody_is_idle_for_nothing(scheduler)
        the_oldest_went_first(heart)


def states_are_counted(scheduler: Scheduler) -> None:
    counted = Counter(node.state for node in scheduler.graph.nodes.values())
    assert not counted.keys() & ENDED
    for state in set(State) - ENDED:
        assert scheduler.graph.counts[state] == counted[state], state


def what_takes_memory_is_counted(scheduler: Scheduler) -> None:
    graph = scheduler.graph
    started = [node for node in graph.nodes.values() if node.pending != UNSTARTED]
    assert graph.edges == sum(len(node.sources) + len(node.refs) for node in started)
    troubles = [node.failures for node in graph.nodes.values() if node.failures is not None]
    assert graph.failures_size == sum(len(trouble.failure or b"") for trouble in troubles)
    assert scheduler.staged.cost == sum(staged.cost for staged in scheduler.staged.values())


def lanes_have_what_is_queued(scheduler: Scheduler) -> None:
    graph = scheduler.graph
    for lane in (*graph.queues.values(), *graph.keyed.values()):
        own = [node for node in graph.nodes.values() if node.queue is lane]
        queued = {place(node) for node in own if node.state is State.QUEUED}
        assert lane.ready == len(queued)
        assert queued <= places(lane)
        assert not queued or graph.active[lane.id] is lane.base
        assert lane.claimed == sum(node.state is State.CLAIMED for node in own)
        assert lane.delayed == sum(node.state is State.BACKOFF for node in own)
        assert bool(lane.delayed) == (lane.number in graph.delayed)
        assert lane.nodes == (len(own) if lane.key else 0)
        if not queued:
            assert not len(lane), "what has left does not stay for ever"
        else:
            assert graph.first(lane) == min(queued)

    functions_count_what_their_keys_have(graph)
    assert all(lane.nodes for lane in graph.keyed.values())
    assert {node.queue.number for node in graph.nodes.values()} <= {
        lane.number for lane in (*graph.queues.values(), *graph.keyed.values())
    }


def functions_count_what_their_keys_have(graph: Graph) -> None:
    for base in graph.queues.values():
        keyed = [lane for lane in graph.keyed.values() if lane.base is base]
        assert base.keyed_ready == sum(lane.ready for lane in keyed)
        assert base.keyed_claimed == sum(lane.claimed for lane in keyed)
        assert base.keyed_delayed == sum(lane.delayed for lane in keyed)
        assert base.keyed_available == sum(lane.available for lane in keyed)
        assert (base.id in graph.active) == bool(base.queued)


def place(node: Node) -> int:
    return order(node.instance.key, node.key, node.queue.function.priority)


def places(lane: FunctionQueue) -> set[int]:
    return {*lane._line, *lane._late}


def claims_are_held_once(scheduler: Scheduler) -> None:
    dispatch = scheduler.dispatch
    held: dict[int, tuple[Slot, Node]] = {}
    for worker in dispatch.workers.values():
        for slot in worker.slots:
            for attempt, (node, _) in slot.held.items():
                assert attempt not in held
                held[attempt] = slot, node
            costs = [(node.queue.is_async, cost) for node, cost in slot.held.values()]
            assert slot.sync_us == sum(cost for is_async, cost in costs if not is_async)
            assert slot.async_us == sum(cost for is_async, cost in costs if is_async)
    assert {attempt: node for attempt, (_, node) in held.items()} == dispatch.claimed
    for attempt, (slot, node) in held.items():
        assert (node.state, node.attempt, node.slot) == (State.CLAIMED, attempt, slot)
        assert attempt <= dispatch.last_attempt
    for node in scheduler.graph.nodes.values():
        assert (node.slot is not None) == (node.state is State.CLAIMED)
    assert scheduler.staged.keys() <= dispatch.claimed.keys()


def broods_have_their_attempt(heart: Heart) -> None:
    """What may still come to nothing is of the last attempt of an unfinished node; of what did, nothing goes on."""
    scheduler, ledger = heart.scheduler, heart.ledger
    assert not scheduler.broods.aborted
    for key, brood in scheduler.broods.open.items():
        node = scheduler.graph.nodes[key]
        assert node.state in (State.CLAIMED, State.QUEUED)
        assert (brood.node, brood.attempt) == (key, node.attempt)
    on_record = {row.node for row in ledger.broods.values() if row.eager_state == EagerState.OPEN}
    assert on_record == scheduler.broods.open.keys()
    for key in scheduler.graph.nodes:
        if not ledger.is_drafted(key):
            assert not ledger.of_dead_attempt(key), "an attempt came to nothing, and what it made goes on"


def what_goes_along_is_with_its_source(scheduler: Scheduler) -> None:
    dispatch = scheduler.dispatch
    beside = {
        node: next(s for s in node.sources if s.state not in ENDED)
        for node in dispatch.claimed.values()
        if node.pending
    }
    assert {source.attempt: node for node, source in beside.items()} == dispatch.fused
    for node, source in beside.items():
        assert source.state is State.CLAIMED
        assert source.slot is node.slot
        held = list(node.slot.held) if node.slot else []
        assert held.index(source.attempt) < held.index(node.attempt), "it runs after its source"


def nobody_waits_for_what_has_ended(scheduler: Scheduler) -> None:
    untold: Counter[Node] = Counter()  # ends that nodes are told of in a later step
    for ended in scheduler.graph.untold:
        untold.update(ended.dependents[ended.at :])
    bad = {ended.node for ended in scheduler.graph.untold if ended.node.state is not State.COMPLETED}
    for node in scheduler.graph.nodes.values():
        if node.pending == UNSTARTED:
            assert node.state is State.WAITING
            continue
        others = node.refs if node.state is State.RESOLVING else node.sources
        unfinished = [other for other in others if other.state not in ENDED]
        assert node.pending == len(unfinished) + untold[node]
        if node.state is State.CLAIMED:
            assert node.pending <= 1, "but for the one that it was sent along with"
        else:
            assert bool(node.pending) == (node.state in (State.WAITING, State.RESOLVING))
        for other in unfinished:
            assert scheduler.graph.nodes[other.key] is other
            assert node in (other.dependents or ())
        for other in others:
            if other.state in ENDED and other.key not in node.tolerates and other not in bad:
                assert other.state is State.COMPLETED, "whose source has failed has failed"


def readers_are_counted(scheduler: Scheduler) -> None:
    readers: Counter[Node] = Counter()
    stack: list[Node] = []
    for node in scheduler.graph.nodes.values():
        if node.pending == UNSTARTED:
            continue
        for other in (*node.sources, *node.refs):
            readers[other] += 1
            if readers[other] == 1 and other.state is State.COMPLETED:
                stack.append(other)
    while stack:
        for other in stack.pop().refs:
            readers[other] += 1
            if readers[other] == 1:
                stack.append(other)
    for node in {*scheduler.graph.nodes.values(), *readers}:
        assert node.consumers == readers[node], node.key


def only_what_is_unfinished_is_in_memory(heart: Heart) -> None:
    graph, ledger = heart.scheduler.graph, heart.ledger
    unfinished = {key for key in ledger.nodes if not ledger.has_ended(key)}
    assert graph.nodes.keys() == unfinished
    live = Counter(ledger.nodes[key].instance for key in unfinished if not ledger.is_drafted(key))
    assert {instance.key: instance.live for instance in graph.instances.values()} == live
    for key in ledger.instances:
        has_ended = key in ledger.ends and ledger.ends[key].ended is not None
        assert has_ended == (key not in live)
    kept = {run.first_key for runs in graph.origins.values() for run in runs}
    assert kept <= {run.first_key for run in ledger.runs if run.instance in live}
    for node in graph.nodes.values():
        assert node.block is not None
        assert node.block.first_key in kept or ledger.is_drafted(node.key)
    for node in graph.nodes.values():
        row = ledger.nodes[node.key]
        if node.state is not State.RESOLVING:
            assert tuple(source.key for source in node.sources) == tuple(map(abs, unpack_keys(row.sources)))


def pauses_have_their_end(scheduler: Scheduler) -> None:
    ends = set(scheduler.graph.pauses)
    for node in scheduler.graph.nodes.values():
        if node.state is State.BACKOFF:
            assert node.failures is not None
            assert (node.failures.retry_at, node.key) in ends
    queued = [node for node in scheduler.graph.nodes.values() if node.state is State.QUEUED]
    expiring = {node.key for node in queued if node.queue.function.queue_timeout}
    assert scheduler.graph.expires_at.keys() == expiring
    assert {(when, key) for key, when in scheduler.graph.expires_at.items()} <= set(scheduler.graph.expiries)


def what_was_adopted_is_on_record(heart: Heart) -> None:
    """Each node is in the lane of the code that runs it, and those of other code than their own know theirs."""
    graph, ledger = heart.scheduler.graph, heart.ledger
    made_with = {}
    for node in graph.nodes.values():
        original = ledger.nodes[node.key].function
        assert node.queue.id == ledger.adopted.get(node.key, original)
        if node.queue.id != original:
            made_with[node.key] = ledger.functions[original].hash
    assert graph.made_with == made_with
    assert graph.rebindings == ledger.adoptions_of(graph.nodes)
    assert graph.rebindings.keys() == made_with.keys()
    for key, row in graph.rebindings.items():
        adoption, node = heart.adoptions[row.signed], graph.nodes[key]
        function = node.queue.function
        assert (adoption.function, adoption.key_id) == (function.name, function.rebound_under)
        assert adoption.hash in ("", function.hash)
        assert made_with[key] in adoption.made_with
        assert adoption.instance in (b"", node.instance.id)


def what_holds_an_old_failure_says_so(heart: Heart) -> None:
    """No node has a value beside a source that runs again, unless it is marked."""
    ledger = heart.ledger
    for key, outcome in ledger.outcomes.items():
        if outcome.state == State.CANCELLED or outcome.value is None or key in ledger.used_failures:
            continue
        if ledger.of_dead_attempt(key):
            continue
        sources = map(abs, unpack_keys(ledger.nodes[key].sources))
        assert all(ledger.has_ended(source) for source in sources), f"node {key} ran on what was taken back"


def slots_are_where_they_belong(scheduler: Scheduler) -> None:
    dispatch = scheduler.dispatch
    pooled = [
        worker for protocol in WireProtocol for pool in dispatch.pools.of(protocol) for worker in pool.workers.values()
    ]
    assert len(pooled) == len(set(pooled))
    for worker in dispatch.workers.values():
        pool = worker.pool
        assert (pool is not None) == (worker in pooled)
        for slot in worker.slots:
            if pool is not None:
                assert (slot in pool.idle) == (not slot.held and not slot.closed)
                assert slot.held or slot not in pool.partially_free
            if slot.closed:
                assert not slot.held
                assert pool is None or slot not in pool.partially_free
            if len(slot.held) > 1:
                assert slot in dispatch.loaded


def nobody_is_idle_for_nothing(scheduler: Scheduler) -> None:
    for pool in scheduler.dispatch.pools.of(WireProtocol.V1):
        if pool.idle:
            assert scheduler.dispatch.head(pool) is None


def the_oldest_went_first(heart: Heart) -> None:
    """No node is left queued that is older than one which was granted to a worker that may run both, nor are too many
    claimed."""
    graph = heart.scheduler.graph
    for granted in heart.effects.granted:
        pool, function = granted.slot.worker.pool, granted.node.queue.function
        assert granted.node.queue.claimed <= (function.max_concurrency or granted.node.queue.claimed)
        if granted.node.pending:
            continue  # it goes along with its source, within the window
        for lane in (*graph.queues.values(), *graph.keyed.values()):
            if pool is not None and pool.may_run(lane) and lane.available > 0:
                assert graph.first(lane) > place(granted.node)
