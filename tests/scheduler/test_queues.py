"""Older instances first, then creation; never arbitrary. And a node that nobody may run holds nobody up."""

from itertools import permutations

import pytest

from dagorama_broker.model.domain import WireProtocol
from tests.support.driver import GPU, Heart, function

A, B, C = (function(name) for name in "ABC")


def test_within_an_instance_creation_decides_whatever_the_function(heart: Heart) -> None:
    heart.spawn("1", "2", "3", "4", "5", where={"1": C, "2": A, "3": B, "4": A, "5": C})
    assert heart.finish(heart.worker()) == ["1", "2", "3", "4", "5"]


def test_older_instances_go_first_across_queues(heart: Heart) -> None:
    heart.spawn("old1", "old2", where={"old1": A, "old2": B})
    heart.spawn("new1", "new2", where={"new1": B, "new2": A})
    assert heart.finish(heart.worker()) == ["old1", "old2", "new1", "new2"]


def test_an_older_instances_node_that_becomes_ready_goes_before_younger_ones(heart: Heart) -> None:
    first, second = heart.worker("first"), heart.worker("second")
    heart.spawn("old", "late <- old")
    heart.spawn("young1", "young2", "young3")
    assert heart.holders() == {"old": "first", "young1": "second"}
    first.complete("old")
    assert heart.holders() == {"late": "first", "young1": "second"}
    assert heart.finish(first, second) == ["late", "young2", "young3", "young1"]


@pytest.mark.parametrize("returned", list(permutations("123")), ids="".join)
def test_what_comes_back_goes_to_its_place(heart: Heart, returned: tuple[str, ...]) -> None:
    worker = heart.worker(slots=3)
    heart.spawn("1", "2", "3", "4")
    with heart.at_once():
        worker.drain()
        for name in returned:
            worker.give_back(name)
    assert heart.finish(heart.worker("other")) == ["1", "2", "3", "4"]


def test_what_a_lost_worker_held_goes_to_its_place(heart: Heart) -> None:
    worker = heart.worker(slots=2)
    heart.spawn("1", "2", "3", "4")
    worker.vanish()
    assert heart.finish(heart.worker("other")) == ["1", "2", "3", "4"]


def test_the_order_is_the_same_after_a_restart_and_after_old_instances_ended(heart: Heart) -> None:
    for instance in range(4):
        heart.spawn(f"{instance}a", f"{instance}b", f"{instance}c <- {instance}a", where={f"{instance}b": A})
    worker = heart.worker()
    for name in ("0a", "0b", "0c", "1a"):
        worker.complete(name)
    heart.crash()
    heart.wait(2.0)  # for the worker that does not come back
    heart.spawn("5a")
    order = heart.finish(heart.worker("other"))
    assert order == ["1b", "1c", "2a", "2b", "2c", "3a", "3b", "3c", "5a"]


class TestTaints:
    def test_a_tainted_node_on_a_plain_queue_never_reaches_a_plain_worker(self, heart: Heart) -> None:
        plain = heart.worker("plain", include_queues={"work"})
        heart.spawn("gpu", "plain", where={"gpu": GPU})
        assert plain.held.keys() == {"plain"}
        plain.complete("plain")
        assert not plain.held
        able = heart.worker("able", tolerations={"GPU"})
        assert able.held.keys() == {"gpu"}

    def test_a_node_that_nobody_may_run_is_shown_with_the_reason(self, heart: Heart) -> None:
        heart.spawn("gpu", where={"gpu": GPU})
        assert reasons(heart) == {"gpu": "no worker is connected (start one with `worker`)"}
        heart.worker("one")
        heart.worker("two", tolerations={"FPGA"})
        heart.worker("three", tolerations={"GPU"}, exclude_queues={"work"})
        heart.worker("four", tolerations={"GPU"}, include_queues={"other"})
        assert reasons(heart) == {
            "gpu": "none of 4 connected workers may run it: it does not tolerate 'GPU' (start one with --toleration "
            "GPU); it excludes queue 'work' (start one that does not); it does not include queue 'work' (start one "
            "with --include-queue work)"
        }
        heart.worker("five", tolerations={"GPU", "FPGA"})
        assert reasons(heart) == {}

    def test_a_worker_that_leaves_counts_for_nobody(self, heart: Heart) -> None:
        worker = heart.worker()
        worker.drain()
        heart.spawn("a")
        expected = "the only connected worker may not run it: it takes nothing more (start another)"
        assert reasons(heart) == {"work": expected}

    def test_a_plain_node_leaves_the_able_worker_to_the_tainted_one(self, heart: Heart) -> None:
        """Whichever came first, and though the plain node is older."""
        heart.worker("able", tolerations={"GPU"})
        heart.worker("plain")
        heart.spawn("plain", "gpu", where={"gpu": GPU})
        assert heart.holders() == {"plain": "plain", "gpu": "able"}

    def test_a_worker_that_gave_a_node_back_with_a_reason_is_not_offered_the_like(self, heart: Heart) -> None:
        without, able = heart.worker("without"), heart.worker("able", slots=2)
        heart.spawn("a", "b", "other", where={"other": C})
        assert heart.holders() == {"a": "without", "b": "able", "other": "able"}
        without.give_back("a", "it cannot import the function")
        able.complete("other")
        assert heart.holders() == {"a": "able", "b": "able"}
        heart.spawn("c", of=C)
        assert heart.holders()["c"] == "without", "others of its nodes it may run"

    def test_when_nobody_is_left_the_reason_says_why(self, heart: Heart) -> None:
        worker = heart.worker()
        heart.spawn("a", "b")
        worker.give_back("a", "it cannot import the function: No module named 'work'")
        assert not worker.held
        expected = "the only connected worker may not run it: it cannot import the function: No module named 'work'"
        assert reasons(heart) == {"work": expected}
        worker.vanish()
        worker.connect()  # it may have been mended
        assert worker.held

    def test_a_node_goes_to_a_worker_that_holds_the_key_it_is_signed_under(self, heart: Heart) -> None:
        plain, other = heart.worker("plain"), heart.worker("other", key_ids={"0b"})
        old, new = function("old", key_id="0a"), function("new", key_id="0b")
        heart.spawn("a", "b", where={"a": old, "b": new})
        assert (list(plain.held), list(other.held)) == ([], ["b"])
        sentence = "it does not hold the signing key 0a: set DAGORAMA_SIGNING_KEYS there"
        assert sentence in reasons(heart)["old"]
        both = heart.worker("both", key_ids={"0a", "0b"})
        assert both.held.keys() == {"a"}
        assert not reasons(heart)

    def test_a_node_behind_one_whose_key_nobody_holds_is_not_held_up(self, heart: Heart) -> None:
        hand = heart.worker(key_ids={"0b"})
        heart.spawn("a", "b", where={"a": function("old", key_id="0a"), "b": function("new", key_id="0b")})
        assert hand.held.keys() == {"b"}

    def test_the_same_function_under_two_keys_is_two_to_the_workers(self, heart: Heart) -> None:
        hand = heart.worker(key_ids={"0b"})
        heart.spawn("a", of=function("work", key_id="0a"))
        heart.spawn("b", of=function("work", key_id="0b"))
        assert hand.held.keys() == {"b"}

    def test_worlds_do_not_mix(self, heart: Heart) -> None:
        ours, theirs = heart.worker("ours"), heart.worker("theirs", protocol=WireProtocol.LEGACY)
        old = function("old", protocol=WireProtocol.LEGACY)
        heart.spawn("our", "their", "their2", where={"their": old, "their2": old})
        assert ours.held.keys() == {"our"}
        assert (theirs.ask(), theirs.ask(), theirs.ask()) == ("their", "their2", None)
        ours.complete("our")
        assert not ours.held


def reasons(heart: Heart) -> dict[str, str]:
    return {lane.function.name: reason for lane, reason in heart.scheduler.dispatch.unschedulable()}
