"""Why a node is not running: each situation has its own code, and a node that nothing blocks is granted next."""

from __future__ import annotations

import random

import pytest

from dagorama_broker.model.domain import Rate, SharedLimit, State, WireProtocol
from dagorama_broker.scheduler import Reason, ReasonCode
from dagorama_broker.scheduler.obstacles import MOST
from dagorama_broker.scheduler.reasons import is_blocked
from tests.support.driver import GPU, KEY, WORK, SchedulerDriver, function, retrying

C = ReasonCode


def reasons(driver: SchedulerDriver, name: str) -> list[Reason]:
    node = driver.scheduler.graph.find(driver.ids[name])
    assert node is not None
    return driver.scheduler.reasons_of(node)


def codes(driver: SchedulerDriver, name: str) -> list[ReasonCode]:
    return [reason.code for reason in reasons(driver, name)]


def only(driver: SchedulerDriver, name: str) -> Reason:
    """The reason that blocks it; there is no other one."""
    (reason,) = [each for each in reasons(driver, name) if each.code not in (C.BEHIND, C.NEXT)]
    return reason


def named(driver: SchedulerDriver, reason: Reason) -> list[str]:
    return [driver.name(node) for node in reason.nodes]


# --- nodes that are not queued ----------------------------------------------------------------------------


def test_a_missing_source(driver: SchedulerDriver) -> None:
    driver.spawn("a", "b", "join <- a b")
    reason = only(driver, "join")
    assert (reason.code, reason.about, named(driver, reason)) == (C.MISSING_SOURCE, 2, ["a", "b"])
    assert reason.text == "2 of its 2 sources have not ended"


def test_promises_that_it_returned(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("a", "b")
    hand.complete("a", "b")
    reason = only(driver, "a")
    assert (reason.code, named(driver, reason)) == (C.RETURNED_PROMISES, ["b"])


def test_backoff_and_delay(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a", of=retrying(3, 5.0))
    hand.fail("a")
    reason = only(driver, "a")
    assert (reason.code, reason.until) == (C.BACKOFF, driver.now + 5.0)
    assert reason.text == "attempt 1 of 3 failed, and it is retried"
    driver.spawn("b", of=function("late", delay=7.0))
    reason = only(driver, "b")
    assert (reason.code, reason.until) == (C.DELAY, driver.now + 7.0)
    assert "7 s after it is ready" in reason.text


def test_where_it_runs_and_what_it_runs_behind(driver: SchedulerDriver) -> None:
    driver.spawn("a", "b", "after <- b")
    for run_time in (function(), WORK):
        driver.scheduler.graph.queues[run_time].run_time.measured(10)
    driver.worker("here")
    assert (only(driver, "a").code, only(driver, "a").text) == (C.RUNNING, "here runs it")
    behind = only(driver, "b")
    assert (behind.code, behind.about, named(driver, behind)) == (C.BEHIND_RUNNING, 1, ["a"])
    along = only(driver, "after")
    assert (along.code, named(driver, along)) == (C.WITH_SOURCE, ["b"])


# --- queued nodes that no worker may run ------------------------------------------------------------------


def test_no_workers(driver: SchedulerDriver) -> None:
    driver.spawn("a")
    reason = only(driver, "a")
    assert (reason.code, reason.text) == (C.NO_WORKERS, "no worker is connected (start one with `worker`)")


def test_what_each_worker_lacks_is_told_with_the_number_of_such_workers(driver: SchedulerDriver) -> None:
    driver.worker("one")
    driver.worker("two")
    driver.worker("three", tolerations={"GPU"}, exclude_queues={"work"})
    driver.worker("four", include_queues={"other"})
    driver.spawn("a", of=GPU)
    found = {reason.code: reason for reason in reasons(driver, "a")}
    assert {code: reason.about for code, reason in found.items()} == {
        C.NO_TOLERATION: 2, C.EXCLUDED_QUEUE: 1, C.NOT_INCLUDED: 1,
    }  # fmt: skip
    assert found[C.NO_TOLERATION].text == (
        "2 of 4 connected workers may not run it: it does not tolerate 'GPU' (start one with --toleration GPU)"
    )


@pytest.mark.parametrize(("key_ids", "code"), [(frozenset(), C.MISSING_KEY), (frozenset({KEY}), C.RUNNING)])
def test_a_signing_key(driver: SchedulerDriver, key_ids: frozenset[str], code: ReasonCode) -> None:
    driver.worker(key_ids=key_ids)
    driver.spawn("a", of=function(key_id=KEY))
    assert only(driver, "a").code == code


@pytest.mark.parametrize(
    "code", [C.NOT_IMPORTABLE, C.OTHER_CODE, C.NOT_REGISTERED, C.UNCHECKABLE, C.RESOURCE, C.RETURNED], ids=str
)
def test_what_a_worker_has_said_when_it_returned_such_a_node(driver: SchedulerDriver, code: ReasonCode) -> None:
    hand = driver.worker()
    driver.spawn("a")
    driver.scheduler.give_back(hand.worker, driver.key("a"), hand.held["a"], "it says so", driver.now, code=code)
    driver.step()
    reason = only(driver, "a")
    assert (reason.code, reason.text) == (code, "the only connected worker may not run it: it says so")


def test_a_worker_that_leaves(driver: SchedulerDriver) -> None:
    driver.scheduler.leave(driver.worker().worker)
    driver.spawn("a")
    assert only(driver, "a").code == C.LEAVING


def test_nodes_of_the_legacy_protocol_are_asked_for(driver: SchedulerDriver) -> None:
    driver.spawn("a", of=function(protocol=WireProtocol.LEGACY))
    assert (only(driver, "a").code, only(driver, "a").text) == (C.NO_WORKERS, "none of its workers is connected")


# --- queued nodes that a worker may run -------------------------------------------------------------------


def test_busy_processes(driver: SchedulerDriver) -> None:
    driver.worker()
    driver.spawn("runs", "waits")
    driver.wait(3)
    reason = only(driver, "waits")
    assert (reason.code, named(driver, reason)) == (C.BUSY, ["runs"])
    assert reason.text == "1 process is busy on 1 worker that may run it; the longest run takes 3 s so far"


def test_a_limit_and_its_key(driver: SchedulerDriver) -> None:
    driver.worker(slots=3)
    driver.spawn("a", "b", of=function("few", max_concurrency=1))
    driver.spawn("x @one", "y @one", of=function("keyed", max_concurrency=1))
    reason = only(driver, "b")
    assert (reason.code, reason.about, named(driver, reason)) == (C.LIMIT, 1, ["a"])
    assert only(driver, "y").text == (
        "1 node of its function with the key 'one' runs, which is its limit (max_concurrency=1)"
    )


def test_older_nodes_that_go_first(driver: SchedulerDriver) -> None:
    driver.worker()
    driver.spawn("runs", "first", "second")
    assert codes(driver, "first") == [C.BUSY, C.NEXT]
    assert codes(driver, "second") == [C.BUSY, C.BEHIND]
    assert reasons(driver, "second")[-1].about == 1


def test_workers_that_may_return_after_a_restart(driver: SchedulerDriver) -> None:
    driver.worker()
    driver.spawn("a", "b")
    driver.crash()
    first = reasons(driver, "b")[0]
    assert (first.code, first.about) == (C.RETURNING_WORKERS, 1)
    assert first.until > driver.now


# --- causes -----------------------------------------------------------------------------------------------


def test_the_causes_of_many_waiting_nodes_are_few_and_the_largest_comes_first(driver: SchedulerDriver) -> None:
    gpus = [f"gpu{number}" for number in range(20)]
    driver.worker()
    driver.spawn(
        "runs", "plain", *gpus, f"join <- runs plain {' '.join(gpus)}", "last <- join", where=dict.fromkeys(gpus, GPU)
    )
    node = driver.scheduler.graph.find(driver.ids["last"])
    assert node is not None
    causes = driver.scheduler.causes_of([node])
    assert (causes.left_out, causes.complete) == (0, True)
    found = [(cause.nodes, cause.reasons[0].code) for cause in causes.largest]
    assert found == [(20, C.NO_TOLERATION), (1, C.BUSY), (1, C.RUNNING)]


def test_causes_that_were_not_all_looked_at_say_so(driver: SchedulerDriver) -> None:
    names = [f"n{number}" for number in range(MOST + 1)]
    driver.spawn(*names)
    nodes = list(driver.scheduler.nodes.values())
    causes = driver.scheduler.causes_of(nodes)
    assert ([cause.nodes for cause in causes.largest], causes.complete) == ([MOST], False)
    causes = driver.scheduler.causes_of(nodes[:MOST])
    assert ([cause.nodes for cause in causes.largest], causes.complete) == ([MOST], True)


# --- what is said agrees with what is done ----------------------------------------------------------------

KINDS = (
    WORK, GPU, function("few", max_concurrency=2), function("many"), function("keyed", max_concurrency=1),
    function("waits", is_async=True), function("late", delay=5.0), function("signed", key_id="other"),
    retrying(2, 60.0), function("first", queue="many", priority=1), function("rated", rate=Rate(2, 60.0)),
    function("keyed", queue="rates", rate=Rate(1, 60.0), rate_by_key=True, max_concurrency=2, concurrency_of_all=True),
    function("shares", limit=SharedLimit("both", Rate(3, 60.0), 2)),
    function("waits and shares", is_async=True, limit=SharedLimit("both", None, 2)),
)  # fmt: skip
#: Codes of nodes that a worker holds.
HELD = (C.RUNNING, C.BEHIND_RUNNING, C.WITH_SOURCE)


def some_nodes(driver: SchedulerDriver, chance: random.Random, most: int) -> None:
    for number in range(chance.randint(0, most)):
        name, of = f"n{len(driver.ids)}", chance.choice(KINDS)
        key = f" @{chance.choice('xy')}" if of.name == "keyed" else ""
        dependent = [f"{name}-after <- {name}"] if number % 4 == 3 else []
        driver.spawn(f"{name}{key}", *dependent, of=of, priority=chance.choice([0, 0, 3]))


def some_workers(driver: SchedulerDriver, chance: random.Random) -> None:
    for number in range(len(driver.hands), chance.randint(0, 3)):
        tolerations = chance.choice([set[str](), {"GPU"}])
        excluded = chance.choice([set[str](), set[str](), {"many"}])
        keys = chance.choice([{KEY}, {KEY, "other"}])
        slots = chance.randint(1, 2)
        driver.worker(f"w{number}", slots, tolerations=tolerations, exclude_queues=excluded, key_ids=keys)


def a_day(driver: SchedulerDriver, chance: random.Random) -> None:
    """Let workers run some nodes, fail some, return some and leave, and let people pause queues."""
    for queue in driver.scheduler.function_queues.values():
        if chance.random() < 0.5:
            queue.run_time.measured(chance.choice([10, 1_000_000]))
    for hand in list(driver.hands.values()):
        for name in list(hand.held)[: chance.randint(0, 2)]:
            match chance.randrange(4):
                case 0:
                    hand.fail(name)
                case 1:
                    why, key, attempt = "it has other code", driver.key(name), hand.held[name]
                    driver.scheduler.give_back(hand.worker, key, attempt, why, driver.now, code=C.OTHER_CODE)
                    hand._answered(name, attempt)
                case _:
                    hand.complete(name)
        if chance.random() < 0.1:
            hand.drain()
    if chance.random() < 0.3:
        driver.scheduler.pause(chance.choice(["work", "many", "keyed"]), "")
    if chance.random() < 0.2:
        driver.crash()


@pytest.mark.parametrize("seed", range(300))
def test_a_node_is_granted_by_the_next_step_if_and_only_if_nothing_blocks_it(seed: int) -> None:
    chance, driver = random.Random(seed), SchedulerDriver()
    some_workers(driver, chance)
    some_nodes(driver, chance, 6)
    a_day(driver, chance)
    with driver.at_once():
        some_workers(driver, chance)
        some_nodes(driver, chance, 12)
        names = [name for name in driver.ids if driver.is_unfinished(name)]
        before = {name: driver.state(name) for name in names}
        said = {name: codes(driver, name) for name in names}
        blocked = {name: is_blocked(reasons(driver, name)) for name in names}
    for name in names:
        is_held = driver.state(name) is State.CLAIMED
        if before[name] is not State.QUEUED:
            assert (said[name][0] in HELD) == (before[name] is State.CLAIMED), name
            assert is_held == (before[name] is State.CLAIMED) or codes(driver, name) == [C.WITH_SOURCE], name
        elif blocked[name]:
            assert not is_held, name
        elif C.BEHIND not in said[name]:
            assert is_held, name
        else:
            assert is_held or is_blocked(reasons(driver, name)), name
