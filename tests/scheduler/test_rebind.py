"""A person has unfinished nodes run by the code that is deployed now: they go over in their order, and stay so."""

from typing import Any

import pytest

from dagorama_broker.errors import FailedPrecondition, NotFound
from dagorama_broker.model.domain import State, WireProtocol
from dagorama_broker.scheduler.rebind import ReboundFunction
from tests.support.driver import Hand, SchedulerDriver, function, retrying
from tests.support.invariants import check

OTHER_CODE = "it has other code"


def deployed(driver: SchedulerDriver, *names: str, hash: str = "new", worker: str = "worker", **rules: Any) -> Hand:
    """A worker with other code, which has given these nodes back."""
    hand = driver.worker(worker, **rules)
    for name in names:
        hand.give_back(name, OTHER_CODE, deployed=hash)
    return hand


def hash_of(driver: SchedulerDriver, name: str) -> str:
    node = driver.scheduler.graph.find(driver.ids[name])
    assert node is not None
    return node.queue.function.hash


def test_what_no_worker_may_run_is_run_by_the_code_that_one_has(driver: SchedulerDriver) -> None:
    driver.spawn("a", "b", "c <- b")
    hand = deployed(driver, "a")
    assert hand.held == {}
    assert driver.rebind("work") == (3, "new")
    check(driver)
    assert driver.finish(hand) == ["a", "b", "c"]
    assert driver.scheduler.graph.made_with == {}


def test_the_code_that_they_were_made_with_stays_known(driver: SchedulerDriver) -> None:
    driver.spawn("a")
    deployed(driver, "a")
    driver.rebind("work")
    assert driver.scheduler.graph.made_with == {driver.key("a"): "h"}
    driver.crash()
    assert driver.scheduler.graph.made_with == {driver.key("a"): "h"}
    assert hash_of(driver, "a") == "new"
    check(driver)


def test_the_order_is_kept_among_those_of_the_new_code_too(driver: SchedulerDriver) -> None:
    driver.spawn("a")
    driver.spawn("b", of=function(hash="new"))
    driver.spawn("c")
    hand = deployed(driver, "a")
    assert list(hand.held) == ["b"]
    hand.drain()
    hand.give_back("b")
    driver.rebind("work", "new", "h")
    assert driver.finish(driver.worker("other")) == ["a", "b", "c"]


def test_what_waits_or_pauses_goes_along_and_what_runs_does_not(driver: SchedulerDriver) -> None:
    hand = driver.worker(slots=2)
    driver.spawn("paused", "running", "waiting <- running", of=retrying(3, 5.0))
    hand.fail("paused")
    assert driver.rebind("retrying", "new", "h") == (2, "new")
    assert driver.states("paused", "running", "waiting") == ["BACKOFF", "CLAIMED", "WAITING"]
    assert [hash_of(driver, name) for name in ("paused", "running", "waiting")] == ["new", "h", "new"]
    check(driver)
    hand.complete("running")
    driver.wait(6.0)
    assert hand.held.keys() == {"waiting", "paused"}


def test_rebinding_twice_changes_nothing_more(driver: SchedulerDriver) -> None:
    driver.spawn("a", "b")
    hand = deployed(driver, "a")
    hand.drain()
    assert driver.rebind("work") == (2, "new")
    assert driver.rebind("work") == (0, "new")


def test_there_and_back_is_as_before(driver: SchedulerDriver) -> None:
    driver.spawn("a", "b", "c")
    driver.rebind("work", "new", "h")
    driver.rebind("work", "h", "new")
    assert driver.scheduler.graph.made_with == {}
    check(driver)
    driver.crash()
    check(driver)
    assert driver.finish(driver.worker()) == ["a", "b", "c"]


def test_twice_over_the_first_code_stays_known(driver: SchedulerDriver) -> None:
    driver.spawn("a")
    driver.rebind("work", "new", "h")
    driver.rebind("work", "newer", "new")
    assert driver.scheduler.graph.made_with == {driver.key("a"): "h"}
    assert driver.finish(driver.worker()) == ["a"]


def test_a_concurrency_key_holds_among_those_that_were_rebound(driver: SchedulerDriver) -> None:
    limited = function("limited", max_concurrency=1)
    driver.spawn("a @k", "b @k", "c @l", of=limited)
    assert driver.rebind("limited", "new", "h") == (3, "new")
    check(driver)
    hand = driver.worker(slots=3)
    assert hand.held.keys() == {"a", "c"}
    driver.crash()
    hand.connect()
    check(driver)
    assert driver.finish(hand) == ["a", "c", "b"]


def test_how_long_a_node_may_be_queued_goes_on_from_when_it_was(driver: SchedulerDriver) -> None:
    driver.spawn("a", of=function("hurried", queue_timeout=5.0))
    driver.wait(3.0)
    driver.rebind("hurried", "new", "h")
    driver.wait(2.5)
    assert driver.state("a") is State.FAILED


def test_what_allows_it_stays_with_each_node(driver: SchedulerDriver) -> None:
    driver.spawn("a")
    driver.spawn("b")
    driver.rebind("work", "new", "h", instance=driver.instance_of("a"))
    driver.rebind("work", "newer", "h")
    graph = driver.scheduler.graph
    for _ in range(2):
        allowed = [driver.rebindings[graph.rebindings[driver.key(name)].signed] for name in ("a", "b")]
        assert [(each.hash, each.instance) for each in allowed] == [("new", driver.instance_of("a")), ("newer", b"")]
        check(driver)
        driver.crash()
        graph = driver.scheduler.graph
    assert driver.finish(driver.worker()) == ["a", "b"]
    assert graph.rebindings == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"}, {"made_with": {"x"}}, {"hash": "newer"}, {"hash": ""}, {"instance": b"i" * 16},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_what_is_not_allowed_is_refused_and_nothing_has_changed(
    driver: SchedulerDriver, changed: dict[str, Any]
) -> None:
    driver.spawn("a", "b")
    before = driver.everything()
    asked = ReboundFunction("work", "new", ("h",))
    allowed: dict[str, Any] = {"name": "work", "made_with": {"h"}, "hash": "new", **changed}
    with pytest.raises(FailedPrecondition, match="the signed rebinding does not allow other code"):
        driver.scheduler.rebind(asked, driver.signed(**allowed))
    with pytest.raises(FailedPrecondition, match="other code for nodes of work needs a signature"):
        driver.scheduler.rebind(asked, None)
    assert driver.everything() == before


def test_nodes_rebound_under_a_key_are_for_workers_that_hold_it(driver: SchedulerDriver) -> None:
    driver.spawn("a", "b")
    hand = deployed(driver, "a", key_ids={"0b"})
    assert driver.rebind("work") == (2, "new")
    assert hand.held == {}
    ((_, why),) = driver.scheduler.claims.unschedulable()
    assert "it does not hold the signing key 0f under which its rebinding was signed" in why
    driver.crash()
    hand.connect()
    assert hand.held == {}
    assert driver.rebind("work", key="0b") == (2, "new")
    assert driver.rebind("work", "new", "new", key="0b") == (1, "new"), "it is signed again if its code is named"
    check(driver)
    assert driver.finish(hand) == ["a", "b"]


def test_a_node_that_was_rebound_before_rebindings_were_signed_is_as_it_was_made(driver: SchedulerDriver) -> None:
    driver.spawn("a")
    driver.rebind("work", "new", "h")
    driver.ledger.rebinding_of.clear()
    driver.crash()
    assert hash_of(driver, "a") == "h"
    assert not driver.scheduler.graph.made_with
    assert not driver.scheduler.graph.rebindings


def test_what_failed_is_rebound_once_it_is_retried(driver: SchedulerDriver) -> None:
    driver.spawn("a", "b")
    driver.rebind("work", "new", "h")
    hand = driver.worker()
    hand.fail("a")
    hand.drain()
    driver.retry("a")
    check(driver)
    assert driver.rebind("work", "newer", "new") == (1, "newer")
    assert driver.scheduler.graph.made_with[driver.key("a")] == "h"
    check(driver)


def test_a_worker_that_gave_the_old_code_back_is_offered_the_new_also_after_it_reconnects(
    driver: SchedulerDriver,
) -> None:
    driver.spawn("a", "b")
    hand = deployed(driver, "a")
    driver.rebind("work")
    assert list(hand.held) == ["a"]
    hand.vanish()
    hand.connect()
    assert driver.finish(hand) == ["a", "b"]


def test_a_hash_must_be_named_if_workers_have_different_code(driver: SchedulerDriver) -> None:
    driver.spawn("a")
    deployed(driver, "a", hash="new", worker="one")
    deployed(driver, "a", hash="newer", worker="two")
    before = driver.everything()
    with pytest.raises(FailedPrecondition, match="different code of work: name one of new, newer"):
        driver.rebind("work")
    assert driver.everything() == before
    assert driver.rebind("work", "newer") == (1, "newer")


def test_what_a_connected_worker_may_run_stays_with_it_unless_it_is_named(driver: SchedulerDriver) -> None:
    driver.spawn("a", "b")
    deployed(driver, "a", worker="new")
    old = driver.worker("old")
    with pytest.raises(FailedPrecondition, match="no connected worker has reported other code of work"):
        driver.rebind("work")
    assert driver.rebind("work", "new", "h") == (1, "new")
    assert old.held.keys() == {"a"}


def test_without_a_worker_both_have_to_be_named(driver: SchedulerDriver) -> None:
    driver.spawn("a")
    for named in ([], ["new"]):
        with pytest.raises(FailedPrecondition, match="name both"):
            driver.rebind("work", *named)
    assert driver.rebind("work", "new", "h") == (1, "new")


@pytest.mark.parametrize(
    ("name", "made_with", "said"),
    [
        ("nothing", (), "no node of a function 'nothing'"),
        ("work", ("x",), "no node of work was made with 'x'; its nodes have h"),
    ],
)
def test_what_is_not_there_is_refused(
    driver: SchedulerDriver, name: str, made_with: tuple[str, ...], said: str
) -> None:
    driver.spawn("a")
    with pytest.raises(NotFound, match=said):
        driver.rebind(name, "new", *made_with)


def test_nodes_of_the_originals_calls_are_not_rebound(driver: SchedulerDriver) -> None:
    driver.spawn("a", of=function("old", protocol=WireProtocol.LEGACY))
    with pytest.raises(NotFound):
        driver.rebind("old", "new", "h")


def test_other_code_of_connected_workers_is_listed(driver: SchedulerDriver) -> None:
    driver.spawn("a")
    deployed(driver, "a", hash="new", worker="one")
    two = deployed(driver, "a", hash="newer", worker="two")
    ((queue, _),) = driver.scheduler.claims.unschedulable()
    assert driver.scheduler.claims.deployed(queue) == ["new", "newer"]
    two.vanish()
    assert driver.scheduler.claims.deployed(queue) == ["new"]
