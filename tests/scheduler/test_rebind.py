"""A person has unfinished nodes run by the code that is deployed now: they go over in their order, and stay so."""

from typing import Any

import pytest

from dagorama_broker.errors import FailedPrecondition, NotFound
from dagorama_broker.model.domain import State, WireProtocol
from dagorama_broker.scheduler.rebind import ReboundFunction
from tests.support.driver import Hand, Heart, function, retrying
from tests.support.invariants import check

OTHER_CODE = "it has other code"


def deployed(heart: Heart, *names: str, hash: str = "new", worker: str = "worker", **rules: Any) -> Hand:
    """A worker with other code, which has given these nodes back."""
    hand = heart.worker(worker, **rules)
    for name in names:
        hand.give_back(name, OTHER_CODE, deployed=hash)
    return hand


def hash_of(heart: Heart, name: str) -> str:
    node = heart.scheduler.graph.find(heart.ids[name])
    assert node is not None
    return node.queue.function.hash


def test_what_no_worker_may_run_is_run_by_the_code_that_one_has(heart: Heart) -> None:
    heart.spawn("a", "b", "c <- b")
    hand = deployed(heart, "a")
    assert hand.held == {}
    assert heart.adopt("work") == (3, "new")
    check(heart)
    assert heart.finish(hand) == ["a", "b", "c"]
    assert heart.scheduler.graph.made_with == {}


def test_the_code_that_they_were_made_with_stays_known(heart: Heart) -> None:
    heart.spawn("a")
    deployed(heart, "a")
    heart.adopt("work")
    assert heart.scheduler.graph.made_with == {heart.key("a"): "h"}
    heart.crash()
    assert heart.scheduler.graph.made_with == {heart.key("a"): "h"}
    assert hash_of(heart, "a") == "new"
    check(heart)


def test_the_order_is_kept_among_those_of_the_new_code_too(heart: Heart) -> None:
    heart.spawn("a")
    heart.spawn("b", of=function(hash="new"))
    heart.spawn("c")
    hand = deployed(heart, "a")
    assert list(hand.held) == ["b"]
    hand.drain()
    hand.give_back("b")
    heart.adopt("work", "new", "h")
    assert heart.finish(heart.worker("other")) == ["a", "b", "c"]


def test_what_waits_or_pauses_goes_along_and_what_runs_does_not(heart: Heart) -> None:
    hand = heart.worker(slots=2)
    heart.spawn("paused", "running", "waiting <- running", of=retrying(3, 5.0))
    hand.fail("paused")
    assert heart.adopt("retrying", "new", "h") == (2, "new")
    assert heart.states("paused", "running", "waiting") == ["BACKOFF", "CLAIMED", "WAITING"]
    assert [hash_of(heart, name) for name in ("paused", "running", "waiting")] == ["new", "h", "new"]
    check(heart)
    hand.complete("running")
    heart.wait(6.0)
    assert hand.held.keys() == {"waiting", "paused"}


def test_rebinding_twice_changes_nothing_more(heart: Heart) -> None:
    heart.spawn("a", "b")
    hand = deployed(heart, "a")
    hand.drain()
    assert heart.adopt("work") == (2, "new")
    assert heart.adopt("work") == (0, "new")


def test_there_and_back_is_as_before(heart: Heart) -> None:
    heart.spawn("a", "b", "c")
    heart.adopt("work", "new", "h")
    heart.adopt("work", "h", "new")
    assert heart.scheduler.graph.made_with == {}
    check(heart)
    heart.crash()
    check(heart)
    assert heart.finish(heart.worker()) == ["a", "b", "c"]


def test_twice_over_the_first_code_stays_known(heart: Heart) -> None:
    heart.spawn("a")
    heart.adopt("work", "new", "h")
    heart.adopt("work", "newer", "new")
    assert heart.scheduler.graph.made_with == {heart.key("a"): "h"}
    assert heart.finish(heart.worker()) == ["a"]


def test_a_concurrency_key_holds_among_those_that_were_adopted(heart: Heart) -> None:
    limited = function("limited", max_concurrency=1)
    heart.spawn("a @k", "b @k", "c @l", of=limited)
    assert heart.adopt("limited", "new", "h") == (3, "new")
    check(heart)
    hand = heart.worker(slots=3)
    assert hand.held.keys() == {"a", "c"}
    heart.crash()
    hand.connect()
    check(heart)
    assert heart.finish(hand) == ["a", "c", "b"]


def test_how_long_a_node_may_be_queued_goes_on_from_when_it_was(heart: Heart) -> None:
    heart.spawn("a", of=function("hurried", queue_timeout=5.0))
    heart.wait(3.0)
    heart.adopt("hurried", "new", "h")
    heart.wait(2.5)
    assert heart.state("a") is State.FAILED


def test_what_allows_it_stays_with_each_node(heart: Heart) -> None:
    heart.spawn("a")
    heart.spawn("b")
    heart.adopt("work", "new", "h", instance=heart.instance_of("a"))
    heart.adopt("work", "newer", "h")
    graph = heart.scheduler.graph
    for _ in range(2):
        allowed = [heart.adoptions[graph.rebindings[heart.key(name)].signed] for name in ("a", "b")]
        assert [(each.hash, each.instance) for each in allowed] == [("new", heart.instance_of("a")), ("newer", b"")]
        check(heart)
        heart.crash()
        graph = heart.scheduler.graph
    assert heart.finish(heart.worker()) == ["a", "b"]
    assert graph.rebindings == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"}, {"made_with": {"x"}}, {"hash": "newer"}, {"hash": ""}, {"instance": b"i" * 16},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_what_is_not_allowed_is_refused_and_nothing_has_changed(heart: Heart, changed: dict[str, Any]) -> None:
    heart.spawn("a", "b")
    before = heart.everything()
    asked = ReboundFunction("work", "new", ("h",))
    allowed: dict[str, Any] = {"name": "work", "made_with": {"h"}, "hash": "new", **changed}
    with pytest.raises(FailedPrecondition, match="what was signed does not allow other code for all nodes of work"):
        heart.scheduler.rebind(asked, heart.signed(**allowed))
    with pytest.raises(FailedPrecondition, match="other code for nodes of work needs a signature"):
        heart.scheduler.rebind(asked, None)
    assert heart.everything() == before


def test_nodes_rebound_under_a_key_are_for_workers_that_hold_it(heart: Heart) -> None:
    heart.spawn("a", "b")
    hand = deployed(heart, "a", key_ids={"0b"})
    assert heart.adopt("work") == (2, "new")
    assert hand.held == {}
    ((_, why),) = heart.scheduler.dispatch.unschedulable()
    assert "it does not hold the signing key 0f under which its adoption was signed" in why
    heart.crash()
    hand.connect()
    assert hand.held == {}
    assert heart.adopt("work", key="0b") == (2, "new")
    assert heart.adopt("work", "new", "new", key="0b") == (1, "new"), "it is signed again if its code is named"
    check(heart)
    assert heart.finish(hand) == ["a", "b"]


def test_a_node_that_was_adopted_before_adoptions_were_signed_is_as_it_was_made(heart: Heart) -> None:
    heart.spawn("a")
    heart.adopt("work", "new", "h")
    heart.ledger.adoption_of.clear()
    heart.crash()
    assert hash_of(heart, "a") == "h"
    assert not heart.scheduler.graph.made_with
    assert not heart.scheduler.graph.rebindings


def test_what_failed_is_adopted_once_it_is_retried(heart: Heart) -> None:
    heart.spawn("a", "b")
    heart.adopt("work", "new", "h")
    hand = heart.worker()
    hand.fail("a")
    hand.drain()
    heart.retry("a")
    check(heart)
    assert heart.adopt("work", "newer", "new") == (1, "newer")
    assert heart.scheduler.graph.made_with[heart.key("a")] == "h"
    check(heart)


def test_a_worker_that_gave_the_old_code_back_is_offered_the_new_also_after_it_reconnects(heart: Heart) -> None:
    heart.spawn("a", "b")
    hand = deployed(heart, "a")
    heart.adopt("work")
    assert list(hand.held) == ["a"]
    hand.vanish()
    hand.connect()
    assert heart.finish(hand) == ["a", "b"]


def test_a_hash_must_be_named_if_workers_have_different_code(heart: Heart) -> None:
    heart.spawn("a")
    deployed(heart, "a", hash="new", worker="one")
    deployed(heart, "a", hash="newer", worker="two")
    before = heart.everything()
    with pytest.raises(FailedPrecondition, match="different code of work: name one of new, newer"):
        heart.adopt("work")
    assert heart.everything() == before
    assert heart.adopt("work", "newer") == (1, "newer")


def test_what_a_connected_worker_may_run_stays_with_it_unless_it_is_named(heart: Heart) -> None:
    heart.spawn("a", "b")
    deployed(heart, "a", worker="new")
    old = heart.worker("old")
    with pytest.raises(FailedPrecondition, match="no connected worker has said that it has other code of work"):
        heart.adopt("work")
    assert heart.adopt("work", "new", "h") == (1, "new")
    assert old.held.keys() == {"a"}


def test_without_a_worker_both_have_to_be_named(heart: Heart) -> None:
    heart.spawn("a")
    for named in ([], ["new"]):
        with pytest.raises(FailedPrecondition, match="name both"):
            heart.adopt("work", *named)
    assert heart.adopt("work", "new", "h") == (1, "new")


@pytest.mark.parametrize(
    ("name", "made_with", "said"),
    [
        ("nothing", (), "no node of a function 'nothing'"),
        ("work", ("x",), "no node of work was made with 'x'; there are h"),
    ],
)
def test_what_is_not_there_is_refused(heart: Heart, name: str, made_with: tuple[str, ...], said: str) -> None:
    heart.spawn("a")
    with pytest.raises(NotFound, match=said):
        heart.adopt(name, "new", *made_with)


def test_nodes_of_the_originals_calls_are_not_adopted(heart: Heart) -> None:
    heart.spawn("a", of=function("old", protocol=WireProtocol.LEGACY))
    with pytest.raises(NotFound):
        heart.adopt("old", "new", "h")


def test_who_has_what_other_code_is_told(heart: Heart) -> None:
    heart.spawn("a")
    deployed(heart, "a", hash="new", worker="one")
    two = deployed(heart, "a", hash="newer", worker="two")
    ((lane, _),) = heart.scheduler.dispatch.unschedulable()
    assert heart.scheduler.dispatch.deployed(lane) == ["new", "newer"]
    two.vanish()
    assert heart.scheduler.dispatch.deployed(lane) == ["new"]
