"""A broker dies at any point and the next one goes on: what was committed is there, what was not never was."""

import pytest

from dagorama_broker.errors import FailedPrecondition
from dagorama_broker.model.domain import State, WireProtocol
from dagorama_broker.scheduler import Limits, Timing
from tests.support.driver import GPU, Heart, function, retrying


class TestWhatSurvives:
    def test_waiting_nodes_and_the_order(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a", "b", "sum <- a b", "last <- sum")
        heart.spawn("young")
        hand.complete("a")
        heart.crash()
        assert heart.states("a", "b", "sum", "last", "young") == ["COMPLETED", "QUEUED", "WAITING", "WAITING", "QUEUED"]
        hand.held.clear()
        hand.connect()
        assert heart.finish(hand) == ["b", "sum", "last", "young"]
        assert heart.in_memory() == {}

    def test_a_broker_that_dies_before_the_commit_has_promised_nothing(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a", "b <- a")
        attempt = hand.held["a"]
        heart.holds_still = True
        hand.make("a", "child")
        hand.complete("a", value=b"lost")
        heart.holds_still = False
        heart.step(commit=False)
        heart.crash()
        assert heart.states("a", "b") == ["QUEUED", "WAITING"]
        assert not heart.is_visible("child")
        hand.held["a"] = attempt  # the result was not acknowledged, so it is said again
        hand.connect()
        assert hand.complete("a", value=b"kept")
        assert heart.outcome("a").value == b"kept"

    def test_values_that_wait_for_what_they_name(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("parent", "user <- parent")
        hand.make("parent", "x", "y <- x")
        hand.complete("parent", "y", "x")
        hand.complete("x")
        heart.crash()
        assert heart.states("parent", "x", "y", "user") == ["RESOLVING", "COMPLETED", "QUEUED", "WAITING"]
        hand.held.clear()
        hand.connect()
        hand.complete("y")
        (granted,) = heart.effects.granted
        assert [node.key for node in granted.node.sources[0].refs] == [heart.key("y"), heart.key("x")]
        hand.complete("user")
        assert heart.in_memory() == {}

    def test_a_value_named_through_others_reaches_its_consumer(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("p0", "user <- p0")
        for depth in range(3):
            hand.make(f"p{depth}", f"p{depth + 1}")
            hand.complete(f"p{depth}", f"p{depth + 1}")
        hand.complete("p3")
        heart.crash()
        hand.held.clear()
        hand.connect()
        (granted,) = heart.effects.granted
        names, node = [], granted.node.sources[0]
        while node.refs:
            (node,) = node.refs
            names.append(node.key)
        assert names == [heart.key(f"p{depth}") for depth in (1, 2, 3)]
        hand.complete("user")
        assert sorted(heart.effects.unread) == [heart.key(f"p{depth}") for depth in range(4)]

    def test_failures_and_whose_they_are(self, heart: Heart) -> None:
        hand = heart.worker()
        instance = heart.spawn("a", "b <- a", "c", "stays")
        hand.fail("a", "no such file")
        heart.crash()
        assert heart.states("a", "b", "c") == ["FAILED", "FAILED", "QUEUED"]
        heart.add(instance, "d <- b c")
        assert heart.state("d") is State.FAILED
        assert heart.culprit("d") == "a"
        assert heart.failure("d").message == "no such file"

    def test_taints_queues_and_policies(self, heart: Heart) -> None:
        heart.spawn("gpu", "plain", where={"gpu": GPU})
        heart.crash()
        plain = heart.worker("plain")
        assert plain.held.keys() == {"plain"}
        able = heart.worker("able", tolerations={"GPU"})
        assert able.held.keys() == {"gpu"}

    def test_runs_deaths_and_losses_so_far(self, heart: Heart) -> None:
        heart.spawn("a", of=retrying(3))
        for blow in ("fail", "die", "vanish", "fail", "die"):
            hand = heart.worker()
            match blow:
                case "fail":
                    hand.fail("a")
                case "die":
                    hand.child_dies(["a"])
            hand.vanish()
            hand.held.clear()
            heart.crash()
        row = heart.ledger.progress[heart.key("a")]
        assert (row.failed_attempts, row.crashes) == (2, 2)
        hand = heart.worker()
        hand.fail("a")
        assert heart.failure("a").attempts == 3

    def test_an_instance_that_waits_for_nothing_is_not_read_back(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a")
        hand.complete("a")
        heart.crash()
        assert heart.in_memory() == {}
        assert heart.scheduler.graph.next_node == 2
        assert heart.scheduler.graph.next_instance == 2

    @pytest.mark.parametrize("crashes", range(4))
    def test_any_number_of_restarts(self, heart: Heart, crashes: int) -> None:
        hand = heart.worker()
        heart.spawn("a", "b <- a", "c <- a b", where={"b": retrying(2, 1.0)})
        for name in ("a", "b"):
            (hand.complete if name == "a" else hand.fail)(name)
            for _ in range(crashes):
                heart.crash()
            if crashes:
                hand.connect()
        heart.wait(1.0)
        assert heart.finish(hand) == ["b", "c"]
        assert heart.ledger.epoch == 1 + 2 * crashes


class TestWhatTheRowsSay:
    """What would be forgotten, or counted twice, if a row had not a column for it."""

    def test_an_instance_that_has_failed_ends_as_failed(self, heart: Heart) -> None:
        hand = heart.worker()
        instance = heart.spawn("a", "b")
        hand.fail("a")
        heart.crash()
        hand.held.clear()
        hand.connect()
        hand.complete("b")
        assert heart.ledger.instance(instance)[1]

    def test_a_failure_that_was_recorded_is_not_counted_again(self, heart: Heart) -> None:
        """Its worker did not hear that it was, and says it once more."""
        hand = heart.worker()
        heart.spawn("a", of=retrying(3))
        attempt = hand.held["a"]
        hand.drain()
        hand.fail("a")
        heart.crash()
        hand.held["a"] = attempt
        hand.connect()
        hand.fail("a", attempt=attempt)
        assert heart.ledger.progress[heart.key("a")].failed_attempts == 1


class TestBackoff:
    def restarted(self, heart: Heart, downtime: float, jump: float = 0.0) -> float:
        """Seconds from the restart to the next run of a node that was to pause for ten."""
        hand = heart.worker()
        heart.spawn("a", of=retrying(3, 10.0))
        hand.fail("a")
        heart.wait(4.0)
        heart.wall += jump
        heart.crash(downtime)
        restarted_at = heart.now
        hand.connect()
        while not hand.held:
            assert heart.next_tick is not None
            heart.wait(heart.next_tick - heart.now)
            hand.beat()
        return heart.now - restarted_at

    def test_goes_on_where_it_was(self, heart: Heart) -> None:
        assert self.restarted(heart, downtime=0.0) == pytest.approx(6.0)

    def test_a_pause_passes_while_the_broker_is_down(self, heart: Heart) -> None:
        assert self.restarted(heart, downtime=5.0) == pytest.approx(1.0)

    def test_a_pause_that_ended_while_the_broker_was_down_is_over(self, heart: Heart) -> None:
        assert self.restarted(heart, downtime=60.0) == 0.0

    def test_is_never_longer_than_the_pause_though_the_clock_went_back(self, heart: Heart) -> None:
        assert self.restarted(heart, downtime=0.0, jump=-366 * 86_400.0) == pytest.approx(10.0)

    def test_a_pause_is_over_when_the_clock_went_forward(self, heart: Heart) -> None:
        assert self.restarted(heart, downtime=0.0, jump=366 * 86_400.0) == 0.0

    def test_a_pause_that_is_over_does_not_keep_a_worker_from_what_it_holds(self, heart: Heart) -> None:
        """The row of a pause stays when the next run is granted."""
        hand = heart.worker()
        heart.spawn("a", of=retrying(3, 1.0))
        hand.fail("a")
        heart.wait(1.0)
        attempt = hand.held["a"]
        heart.holds_still = True  # the worker is back before the broker's first step
        heart.crash()
        hand.connect()
        heart.holds_still = False
        heart.step()
        assert hand.held == {"a": attempt}
        assert hand.complete("a")


class TestAdoption:
    def test_a_surviving_worker_keeps_what_it_holds_and_its_result_counts(self, heart: Heart) -> None:
        hand = heart.worker(slots=2)
        heart.spawn("a", "b", "c <- a b")
        attempts = dict(hand.held)
        heart.crash()
        hand.connect()
        assert hand.held == attempts
        assert hand.complete("a")
        assert hand.complete("b")
        assert hand.held.keys() == {"c"}
        assert heart.outcome("a").attempt == attempts["a"]

    def test_a_claim_of_two_epochs_ago_stands_where_nobody_was_granted_the_node(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a")
        heart.crash()
        heart.crash()
        hand.connect()
        assert hand.complete("a")

    def test_an_adopted_claim_stands_through_a_lost_connection(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a")
        heart.crash()
        hand.connect()
        hand.vanish()
        hand.connect()
        assert hand.complete("a")

    def test_a_claim_from_before_the_restart_is_refused_once_the_node_was_granted_again(self, heart: Heart) -> None:
        hand = heart.worker("first")
        heart.spawn("a")
        attempt = hand.held["a"]
        heart.crash()
        heart.wait(2.0)
        second = heart.worker("second")
        hand.connect()
        assert hand.refused == [attempt]
        assert second.complete("a")

    def test_a_node_that_has_ended_is_refused(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a", "b <- a")
        attempt = hand.held["a"]
        hand.complete("a", value=b"recorded")
        heart.crash()
        hand.held = {"a": attempt}
        hand.connect()
        assert hand.refused == [attempt]
        assert heart.outcome("a").value == b"recorded"

    def test_the_later_of_two_earlier_claims_stands_whoever_comes_first(self, heart: Heart) -> None:
        """One worker was silent past its lease, another was given the node; then the broker died."""
        silent, holder = heart.worker("silent"), heart.worker("holder")
        heart.spawn("a")
        assert silent.held
        silent.vanish()
        assert holder.held["a"] > silent.held["a"]
        heart.crash()
        earlier = silent.held["a"]
        silent.connect()
        assert heart.holders() == {"a": "silent"}
        silent.make("a", "child of silent")
        holder.connect()
        assert heart.holders() == {"a": "holder"}
        assert silent.refused == [earlier]
        assert not silent.complete("a", attempt=earlier)
        assert holder.complete("a")
        assert not heart.is_visible("child of silent")

    def test_the_earlier_of_two_earlier_claims_falls_when_it_comes_second(self, heart: Heart) -> None:
        silent, holder = heart.worker("silent"), heart.worker("holder")
        heart.spawn("a")
        silent.vanish()
        heart.crash()
        earlier = silent.held["a"]
        holder.connect()
        silent.connect()
        assert silent.refused == [earlier]
        assert heart.holders() == {"a": "holder"}


class TestHoldingOff:
    def test_nothing_is_handed_out_until_the_workers_on_record_are_back(self, heart: Heart) -> None:
        one, two = heart.worker("one"), heart.worker("two")
        heart.spawn("a", "b", "c")
        heart.crash()
        stranger = heart.worker("stranger")
        assert not stranger.held
        one.connect()
        assert not stranger.held
        two.connect()
        assert stranger.held.keys() == {"c"}
        assert heart.holders() == {"a": "one", "b": "two", "c": "stranger"}

    def test_nodes_are_handed_out_two_seconds_after_a_restart_at_the_latest(self, heart: Heart) -> None:
        heart.worker("gone")
        heart.spawn("a")
        heart.crash()
        hand = heart.worker("other")
        heart.wait(1.9)
        assert not hand.held
        assert heart.next_tick == pytest.approx(heart.now + 0.1)
        heart.wait(0.1)
        assert hand.held.keys() == {"a"}

    def test_nodes_are_handed_out_at_once_if_no_worker_is_on_record(self, heart: Heart) -> None:
        heart.worker("gone").vanish()
        heart.spawn("a")
        heart.crash()
        assert heart.worker("other").held.keys() == {"a"}

    def test_how_long_is_a_setting(self) -> None:
        heart = Heart(timing=Timing(reconnect_wait=0.0))
        heart.worker("gone")
        heart.spawn("a")
        heart.crash()
        assert heart.worker("other").held.keys() == {"a"}

    def test_a_broker_that_dies_again_meanwhile_still_knows_whom_to_wait_for(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a")
        heart.crash()
        heart.wait(1.0)
        heart.crash()
        other = heart.worker("other")
        assert not other.held
        hand.connect()
        assert heart.holders() == {"a": "worker"}

    def test_who_has_not_come_back_in_time_is_not_waited_for_again(self, heart: Heart) -> None:
        heart.worker("gone")
        heart.spawn("a")
        heart.crash()
        heart.wait(2.0)
        heart.crash()
        assert heart.worker("other").held.keys() == {"a"}

    def test_the_originals_workers_wait_too(self, heart: Heart) -> None:
        heart.worker("gone")
        heart.spawn("a", of=function("old", protocol=WireProtocol.LEGACY))
        heart.crash()
        theirs = heart.worker("theirs", protocol=WireProtocol.LEGACY)
        assert theirs.ask() is None
        heart.wait(2.0)
        assert theirs.ask() == "a"


class TestWhatAStoreMightHold:
    """Not written by this heart, but nothing may wait for ever because of it."""

    def test_a_value_whose_promises_have_ended_is_complete(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("parent", "user <- parent")
        hand.make("parent", "child")
        hand.complete("parent", "child")
        hand.complete("child")
        key = heart.key("parent")
        heart.ledger.outcomes[key] = heart.ledger.outcomes[key]._replace(state=State.RESOLVING)
        heart.crash()
        assert heart.states("parent", "user") == ["COMPLETED", "QUEUED"]

    def test_a_node_whose_source_has_failed_fails(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a", "b <- a", "c <- b")
        hand.fail("a")
        for name in "bc":
            del heart.ledger.outcomes[heart.key(name)]
        heart.crash()
        assert heart.states("b", "c") == ["FAILED", "FAILED"]
        assert heart.culprit("c") == "a"


class TestLossesOnRecord:
    """A loss that one broker has counted, and the worker that presents the attempt to the next."""

    def test_is_taken_back_if_the_worker_returns_to_the_next_broker(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a")
        hand.vanish()
        assert heart.ledger.progress[heart.key("a")].worker_losses == 1
        heart.crash()
        hand.connect()
        assert heart.ledger.progress[heart.key("a")].worker_losses == 0
        assert hand.complete("a")

    def test_is_taken_back_once(self, heart: Heart) -> None:
        hand = heart.worker("first")
        heart.spawn("a")
        hand.vanish(), hand.held.clear()
        hand = heart.worker("second")
        for _ in range(3):
            hand.vanish()
            hand.connect()
            heart.crash()
            hand.connect()
        assert heart.ledger.progress[heart.key("a")].worker_losses == 1
        assert hand.complete("a")

    def test_stands_for_a_node_that_was_granted_since(self, heart: Heart) -> None:
        first = heart.worker("first")
        heart.spawn("a")
        first.vanish()
        second = heart.worker("second")
        heart.crash()
        second.connect()
        first.connect()
        assert first.refused
        assert heart.ledger.progress[heart.key("a")].worker_losses == 1
        assert second.complete("a")


class TestIdsThatAreNotProven:
    def test_do_not_end_the_session_of_a_connected_worker(self, heart: Heart) -> None:
        hand = heart.worker("worker")
        heart.spawn("a")
        with pytest.raises(FailedPrecondition, match="cannot prove that the id is its own"):
            heart.worker("worker", is_proven=False)
        assert hand.complete("a")

    def test_are_not_waited_for_and_do_not_stand_for_who_is(self, heart: Heart) -> None:
        hand = heart.worker("worker")
        heart.spawn("a")
        heart.crash()
        thief = heart.worker("worker", is_proven=False)
        assert heart.scheduler.awaited == {hand.presence.id}
        hand.connect()
        assert not thief.held
        assert hand.complete("a")
        heart.worker("stranger", is_proven=False)
        heart.crash()
        assert heart.scheduler.awaited == {hand.presence.id}


def test_a_failure_that_a_crash_cut_short_reaches_the_rest_and_no_other_source_makes_it_ready() -> None:
    heart = Heart(limits=Limits(step=1))
    heart.spawn("fails", "first <- fails", "second <- fails", "tolerated <- fails", "last <- tolerated? fails")
    heart.worker().fail("fails")
    assert heart.states("first", "second", "tolerated", "last") == ["FAILED", "FAILED", "WAITING", "WAITING"]
    heart.crash()
    heart.settle()
    assert heart.states("tolerated", "last") == ["FAILED", "FAILED"]
    assert heart.in_memory() == {}


def test_a_restart_starts_the_nodes_of_a_large_call_that_had_not_been_started() -> None:
    heart = Heart(limits=Limits(step=1))
    run = heart.run(heart.fresh(16), heart.fresh(12), ["a", "b", "c <- a b"])
    run.creates = ("work:Work", run.origin + bytes(4))
    for _ in heart.submit_in_slices(run):
        pass
    assert heart.states("a", "b", "c") == ["QUEUED", "WAITING", "WAITING"]
    heart.crash()
    assert heart.states("a", "b", "c") == ["QUEUED", "QUEUED", "WAITING"]
    assert heart.finish(heart.worker()) == ["a", "b", "c"]


def test_a_crash_before_a_large_call_is_decided_leaves_nothing_of_it() -> None:
    heart = Heart(limits=Limits(step=1))
    run = heart.run(heart.fresh(16), heart.fresh(12), ["a", "b"])
    run.creates = ("work:Work", run.origin + bytes(4))
    slices = heart.submit_in_slices(run)
    while not heart.ledger.nodes:
        assert not next(slices)
        heart.step()
    heart.crash()
    assert heart.in_memory() == {}
    assert not heart.ledger.nodes
    assert not heart.is_visible("a")
