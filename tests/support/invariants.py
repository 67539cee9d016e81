"""Facts that are true of a scheduler after every step, after any calls."""

from __future__ import annotations

from collections import Counter
from math import inf

from dagorama_broker.model.domain import ENDED, EagerState, State, WireProtocol, unpack_keys
from dagorama_broker.model.key_pauses import PausedKey
from dagorama_broker.scheduler import DemandQuery, Node, ReadyAges, ReasonCode, Scheduler, Slot
from dagorama_broker.scheduler.graph import Graph
from dagorama_broker.scheduler.objects import UNSTARTED
from dagorama_broker.scheduler.places import rank
from dagorama_broker.scheduler.queues import FunctionQueue, order
from dagorama_broker.scheduler.reasons import is_blocked
from dagorama_broker.scheduler.starts import gates_of
from tests.support.driver import SchedulerDriver


def check(driver: SchedulerDriver) -> None:
    """After a step, all that was drained being in the ledger."""
    scheduler = driver.scheduler
    states_are_counted(scheduler)
    what_takes_memory_is_counted(scheduler)
    queues_have_what_is_queued(scheduler)
    turns_are_on_record(driver)
    claims_are_held_once(scheduler)
    gates_count_what_is_claimed(driver)
    what_goes_along_is_with_its_source(scheduler)
    nobody_waits_for_what_has_ended(scheduler)
    readers_are_counted(scheduler)
    only_what_is_unfinished_is_in_memory(driver)
    pauses_have_their_end(scheduler)
    paused_keys_are_on_record_and_wait(driver)
    eager_attempts_have_their_attempt(driver)
    slots_are_where_they_belong(scheduler)
    what_was_rebound_is_on_record(driver)
    what_holds_an_old_failure_says_so(driver)
    each_queued_node_has_a_reason(driver)
    each_wait_has_its_reason_and_its_end(driver)
    if scheduler.dispatch_paused_until is None:
        nobody_is_idle_for_nothing(scheduler)
        the_demand_agrees_with_the_grants(scheduler)
        the_oldest_went_first(driver)


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


def queues_have_what_is_queued(scheduler: Scheduler) -> None:
    graph = scheduler.graph
    for queue in (*graph.queues.values(), *graph.keyed.values()):
        own = [node for node in graph.nodes.values() if node.queue is queue]
        queued = {place(node, node.instance.rank) for node in own if node.state is State.QUEUED}
        assert queue.ready == len(queued)
        assert queued <= places(queue)
        assert not queued or graph.active[queue.id] is queue.base
        assert queue.claimed == sum(node.state is State.CLAIMED for node in own)
        assert queue.delayed == sum(node.state is State.BACKOFF for node in own)
        assert bool(queue.delayed) == (queue.number in graph.delayed)
        assert queue.nodes == (len(own) if queue.key else 0)
        if not queued:
            assert not len(queue), "a queue that has left does not stay forever"
        else:
            assert graph.first(queue) == min(queued)

    functions_count_what_their_keys_have(graph)
    assert all(queue.nodes for queue in graph.keyed.values())
    assert {node.queue.number for node in graph.nodes.values()} <= {
        queue.number for queue in (*graph.queues.values(), *graph.keyed.values())
    }


def turns_are_on_record(driver: SchedulerDriver) -> None:
    """Each instance has its turn on record, unless that is its key or it goes on after it had ended."""
    lines = driver.scheduler.graph.turns._lines
    shares: Counter[tuple[int, str]] = Counter()
    for instance in driver.scheduler.graph.instances.values():
        row, priority = driver.ledger.turns.get(instance.key), driver.ledger.instances[instance.key].priority
        assert instance.line is lines[priority]
        assert instance.rank == rank(instance.turn, instance.key, priority)
        if instance.fair is None:
            assert instance.turn == instance.key or instance.turn <= instance.line.reached
        else:
            shares[priority, instance.fair] += 1
            assert row == (instance.key, instance.fair, instance.turn)
            assert instance.turn <= instance.line.shares[instance.fair].last
    counted = {
        (priority, key): share.unfinished for priority, line in lines.items() for key, share in line.shares.items()
    }
    assert counted == shares, "a key without unfinished instances is forgotten"


def functions_count_what_their_keys_have(graph: Graph) -> None:
    for base in graph.queues.values():
        keyed = [queue for queue in graph.keyed.values() if queue.base is base]
        assert base.keyed_ready == sum(queue.ready for queue in keyed)
        assert base.keyed_claimed == sum(queue.claimed for queue in keyed)
        assert base.keyed_delayed == sum(queue.delayed for queue in keyed)
        assert base.keyed_available == sum(queue.available for queue in keyed)
        assert (base.id in graph.active) == bool(base.queued)


def place(node: Node, rank: int) -> int:
    return order(rank, node.key, node.queue.function.priority)


def places(queue: FunctionQueue) -> set[int]:
    return {*(place for run in queue._ranges() for place in range(*run)), *queue._late}


def claims_are_held_once(scheduler: Scheduler) -> None:
    claims = scheduler.claims
    held: dict[int, tuple[Slot, Node]] = {}
    for worker in claims.workers.values():
        for slot in worker.slots:
            for attempt, (node, _) in slot.held.items():
                assert attempt not in held
                held[attempt] = slot, node
            costs = [(node.queue.is_async, cost) for node, cost in slot.held.values()]
            assert slot.sync_us == sum(cost for is_async, cost in costs if not is_async)
            assert slot.async_us == sum(cost for is_async, cost in costs if is_async)
    assert {attempt: node for attempt, (_, node) in held.items()} == claims.claimed
    for attempt, (slot, node) in held.items():
        assert (node.state, node.attempt, node.slot) == (State.CLAIMED, attempt, slot)
        assert attempt <= claims.last_attempt
    for node in scheduler.graph.nodes.values():
        assert (node.slot is not None) == (node.state is State.CLAIMED)
    assert scheduler.staged.keys() <= claims.claimed.keys()


def eager_attempts_have_their_attempt(driver: SchedulerDriver) -> None:
    """A pending eager attempt is the last one of an unfinished node; nothing of an aborted one goes on."""
    scheduler, ledger = driver.scheduler, driver.ledger
    assert not scheduler.eager_attempts.aborted
    for key, eager_attempt in scheduler.eager_attempts.open.items():
        node = scheduler.graph.nodes[key]
        assert node.state in (State.CLAIMED, State.QUEUED)
        assert (eager_attempt.node, eager_attempt.attempt) == (key, node.attempt)
    on_record = {row.node for row in ledger.eager_attempts.values() if row.eager_state == EagerState.OPEN}
    assert on_record == scheduler.eager_attempts.open.keys()
    for key in scheduler.graph.nodes:
        if not ledger.is_drafted(key):
            assert not ledger.of_dead_attempt(key), "an attempt was aborted, and the nodes that it created go on"


def gates_count_what_is_claimed(driver: SchedulerDriver) -> None:
    scheduler = driver.scheduler
    graph, unstarted = scheduler.graph, scheduler.claims.unstarted
    assert all(scheduler.claims.claimed[attempt] is node for attempt, node in unstarted.items())
    shared = [*graph.rates.shared.values(), *graph.rates.of_functions.values()]
    for gate in shared:
        own = [node for node in graph.nodes.values() if gate in node.queue.base.gates]
        assert gate.claimed == sum(node.state is State.CLAIMED for node in own)
        assert gate.queues.keys() == {queue for queue in graph.queues.values() if gate in queue.gates}
    by_key = [gate for gates in graph.rates.of_keys.values() for gate in gates.values()]
    for gate in (*shared, *by_key):
        assert gate.held == sum(gate in gates_of(node.queue) for node in unstarted.values())
        assert gate.used == sum(span.starts for span in gate._spans)
        assert gate.spans == 0 or gate.due < inf, "it is looked at when it may open, or be forgotten"
        assert not gate.is_idle, "it would stay forever"
        assert gate.due > driver.now or (driver.next_tick is not None and driver.next_tick <= driver.now)


def what_goes_along_is_with_its_source(scheduler: Scheduler) -> None:
    claims = scheduler.claims
    beside = [
        (node, s) for node in claims.claimed.values() if node.pending for s in node.sources if s.state not in ENDED
    ]
    assert {source.attempt: node for node, source in beside} == claims.fused
    assert len(claims.fused) == len(beside), "one node goes along with each"
    for node, source in beside:
        assert source.state is State.CLAIMED
        assert source.slot is node.slot
        held = list(node.slot.held) if node.slot else []
        assert held.index(source.attempt) < held.index(node.attempt), "it runs after its source"


def nobody_waits_for_what_has_ended(scheduler: Scheduler) -> None:
    unnotified: Counter[Node] = Counter()  # ends that nodes are told of in a later step
    for ended in scheduler.graph.unnotified:
        unnotified.update(ended.dependents[ended.at :])
    bad = {ended.node for ended in scheduler.graph.unnotified if ended.node.state is not State.COMPLETED}
    for node in scheduler.graph.nodes.values():
        if node.pending == UNSTARTED:
            assert node.state is State.WAITING
            continue
        others = node.refs if node.state is State.RESOLVING else node.sources
        if node.state is State.WAITING and node.twin is not None:
            others = (*others, node.twin)  # it computes the same
        unfinished = [other for other in others if other.state not in ENDED]
        assert node.pending == len(unfinished) + unnotified[node] + (node.wait is not None), "or for its signal"
        if node.state is State.CLAIMED:
            assert node.pending == len(unfinished), "but for the ones that it was sent along with"
        else:
            assert bool(node.pending) == (node.state in (State.WAITING, State.RESOLVING))
        for other in unfinished:
            assert scheduler.graph.nodes[other.key] is other
            assert node in (other.dependents or ())
        for other in others:
            is_borne = other.key in node.tolerates or other is node.twin
            if other.state in ENDED and not is_borne and other not in bad:
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


def only_what_is_unfinished_is_in_memory(driver: SchedulerDriver) -> None:
    graph, ledger = driver.scheduler.graph, driver.ledger
    unfinished = {key for key in ledger.nodes if not ledger.has_ended(key)}
    assert graph.nodes.keys() == unfinished
    live = Counter(ledger.nodes[key].instance for key in unfinished if not ledger.is_drafted(key))
    assert {instance.key: instance.live for instance in graph.instances.values()} == live
    for key in ledger.instances:
        has_ended = key in ledger.ends and ledger.ends[key].ended is not None
        assert has_ended == (key not in live)
    kept = {block.first_key for blocks in graph.origins.values() for block in blocks}
    assert kept <= {block.first_key for block in ledger.blocks if block.instance in live}
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


def paused_keys_are_on_record_and_wait(driver: SchedulerDriver) -> None:
    graph = driver.scheduler.graph
    assert graph.key_pauses.rows == driver.ledger.key_pauses
    for queue in (*graph.queues.values(), *graph.keyed.values()):
        assert queue.is_held == (PausedKey(queue.function.name, queue.key) in graph.key_pauses.rows)
    for name, gate in graph.rates.shared.items():
        assert gate.is_paused == (PausedKey(name, "", 1) in graph.key_pauses.rows)
    for granted in driver.effects.granted:
        assert not graph.key_pauses.held(granted.node.queue)
    ends = map(graph.key_pauses.end_of, graph.key_pauses.rows)
    assert all(driver.next_tick is not None and (end > driver.now or driver.next_tick <= driver.now) for end in ends)


def what_was_rebound_is_on_record(driver: SchedulerDriver) -> None:
    """Each node is in the queue of the code that runs it, and nodes that other code runs know their own."""
    graph, ledger = driver.scheduler.graph, driver.ledger
    made_with = {}
    for node in graph.nodes.values():
        original = ledger.nodes[node.key].function
        assert node.queue.id == ledger.rebound.get(node.key, original)
        if node.queue.id != original:
            made_with[node.key] = ledger.functions[original].hash
    assert graph.made_with == made_with
    assert graph.rebindings == ledger.rebindings_of(graph.nodes)
    assert graph.rebindings.keys() == made_with.keys()
    for key, row in graph.rebindings.items():
        rebinding, node = driver.rebindings[row.signed], graph.nodes[key]
        function = node.queue.function
        assert (rebinding.function, rebinding.key_id) == (function.name, function.rebound_under)
        assert rebinding.hash in ("", function.hash)
        assert made_with[key] in rebinding.made_with
        assert rebinding.instance in (b"", node.instance.id)


def what_holds_an_old_failure_says_so(driver: SchedulerDriver) -> None:
    """No node has a value while one of its sources runs again, unless it is marked."""
    ledger = driver.ledger
    for key, outcome in ledger.outcomes.items():
        if outcome.state == State.CANCELLED or outcome.value is None or key in ledger.used_failures:
            continue
        if ledger.of_dead_attempt(key):
            continue
        sources = map(abs, unpack_keys(ledger.nodes[key].sources))
        assert all(ledger.has_ended(source) for source in sources), f"node {key} ran on what was taken back"


def slots_are_where_they_belong(scheduler: Scheduler) -> None:
    claims = scheduler.claims
    pooled = [
        worker for protocol in WireProtocol for pool in claims.pools.of(protocol) for worker in pool.workers.values()
    ]
    assert len(pooled) == len(set(pooled))
    for worker in claims.workers.values():
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
                assert slot in claims.loaded


def nobody_is_idle_for_nothing(scheduler: Scheduler) -> None:
    for pool in scheduler.claims.pools.of(WireProtocol.V1):
        if pool.idle:
            assert scheduler.claims.head(pool) is None


def the_demand_agrees_with_the_grants(scheduler: Scheduler) -> None:
    """A pool with an empty slot has no ready node left, but delayed ones; and what it may be granted next is ready."""
    look = scheduler.demand(ReadyAges(scheduler.graph))
    for pool in scheduler.claims.pools.of(WireProtocol.V1):
        worker = pool.any_worker()
        demand = look.demand(DemandQuery(worker.info))
        if pool.idle and not worker.refuses:  # another worker with the same rules may run what this one has returned
            assert demand.ready <= scheduler.counts[State.BACKOFF]
        if scheduler.claims.head(pool) is not None:
            assert demand.ready > 0
        running = [slot for each in pool.workers.values() for slot in each.slots if slot.held]
        assert demand.running >= demand.running_slots >= len(running)


def each_queued_node_has_a_reason(driver: SchedulerDriver) -> None:
    """`explain` agrees with the grants of the step: a node without a reason would have been granted."""
    if driver.next_tick is not None and driver.next_tick <= driver.now:
        return  # there is more to do at once
    for node in driver.scheduler.nodes.values():
        if node.state is State.QUEUED:
            reasons = driver.scheduler.reasons_of(node)
            codes = [reason.code for reason in reasons]
            assert is_blocked(reasons) or ReasonCode.BEHIND in codes, f"{driver.name(node)}: {codes}"


def each_wait_has_its_reason_and_its_end(driver: SchedulerDriver) -> None:
    """`explain` says that a node waits, and until when: a wait whose time is over would have been ended by the step."""
    is_due = driver.next_tick is not None and driver.next_tick <= driver.now
    boxes = [box for boxes in driver.scheduler.graph.mail._of.values() for box in boxes.values()]
    assert driver.scheduler.signal_counts[:2] == tuple(
        sum(map(len, each)) for each in ([box.kept for box in boxes], [box.waiting for box in boxes])
    )
    for node in driver.scheduler.nodes.values():
        if node.wait is None or node.pending == UNSTARTED:
            continue
        (reason,) = driver.scheduler.reasons_of(node)
        assert reason.code is ReasonCode.SIGNAL
        box = driver.scheduler.graph.mail.find(node.instance.key, node.wait.name)
        assert box is not None
        assert node.key in box.waiting
        assert not box.kept, "a kept signal would have been given to it"
        if reason.until:
            assert is_due or reason.until > driver.now - 1e-6
            assert driver.next_tick is None or driver.next_tick <= max(driver.now, reason.until) + 1e-6


def the_oldest_went_first(driver: SchedulerDriver) -> None:
    """No node is left queued that is older than one which was granted to a worker that may run both, nor are too many
    claimed."""
    graph = driver.scheduler.graph
    for granted in driver.effects.granted:
        pool, function = granted.slot.worker.pool, granted.node.queue.function
        assert granted.node.queue.claimed <= (function.max_concurrency or granted.node.queue.claimed)
        if granted.node.pending:
            continue  # it goes along with its source, within the window
        instance = granted.node.instance  # its priority is read from the store, as the next broker reads it
        priority = driver.ledger.instances[instance.key].priority
        for queue in (*graph.queues.values(), *graph.keyed.values()):
            if pool is not None and pool.may_run(queue) and queue.available > 0 and not queue.base.is_closed:
                assert graph.first(queue) > place(granted.node, rank(instance.turn, instance.key, priority))
