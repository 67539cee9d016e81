"""A broker dies at any point and the next one goes on: what was committed is there, what was not never was."""

import pytest

from dagorama_broker.errors import FailedPrecondition
from dagorama_broker.model.domain import State, WireProtocol
from dagorama_broker.scheduler import KEYS_LEFT_OUT, Limits, Timing
from tests.support.driver import GPU, SchedulerDriver, function, retrying


class TestWhatSurvives:
    def test_waiting_nodes_and_the_order(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b", "sum <- a b", "last <- sum")
        driver.spawn("young")
        hand.complete("a")
        driver.crash()
        assert driver.states("a", "b", "sum", "last", "young") == [
            "COMPLETED",
            "QUEUED",
            "WAITING",
            "WAITING",
            "QUEUED",
        ]
        hand.held.clear()
        hand.connect()
        assert driver.finish(hand) == ["b", "sum", "last", "young"]
        assert driver.in_memory() == {}

    def test_a_broker_that_dies_before_the_commit_has_promised_nothing(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b <- a")
        attempt = hand.held["a"]
        driver.holds_still = True
        hand.make("a", "child")
        hand.complete("a", value=b"lost")
        driver.holds_still = False
        driver.step(commit=False)
        driver.crash()
        assert driver.states("a", "b") == ["QUEUED", "WAITING"]
        assert not driver.is_visible("child")
        hand.held["a"] = attempt  # the result was not acknowledged, so it is said again
        hand.connect()
        assert hand.complete("a", value=b"kept")
        assert driver.outcome("a").value == b"kept"

    def test_values_that_wait_for_what_they_name(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("parent", "user <- parent")
        hand.make("parent", "x", "y <- x")
        hand.complete("parent", "y", "x")
        hand.complete("x")
        driver.crash()
        assert driver.states("parent", "x", "y", "user") == ["RESOLVING", "COMPLETED", "QUEUED", "WAITING"]
        hand.held.clear()
        hand.connect()
        hand.complete("y")
        (granted,) = driver.effects.granted
        assert [node.key for node in granted.node.sources[0].refs] == [driver.key("y"), driver.key("x")]
        hand.complete("user")
        assert driver.in_memory() == {}

    def test_a_value_named_through_others_reaches_its_consumer(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("p0", "user <- p0")
        for depth in range(3):
            hand.make(f"p{depth}", f"p{depth + 1}")
            hand.complete(f"p{depth}", f"p{depth + 1}")
        hand.complete("p3")
        driver.crash()
        hand.held.clear()
        hand.connect()
        (granted,) = driver.effects.granted
        names, node = [], granted.node.sources[0]
        while node.refs:
            (node,) = node.refs
            names.append(node.key)
        assert names == [driver.key(f"p{depth}") for depth in (1, 2, 3)]
        hand.complete("user")
        assert sorted(driver.effects.unread) == [driver.key(f"p{depth}") for depth in range(4)]

    def test_failures_and_whose_they_are(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        instance = driver.spawn("a", "b <- a", "c", "stays")
        hand.fail("a", "no such file")
        driver.crash()
        assert driver.states("a", "b", "c") == ["FAILED", "FAILED", "QUEUED"]
        driver.add(instance, "d <- b c")
        assert driver.state("d") is State.FAILED
        assert driver.root_cause("d") == "a"
        assert driver.failure("d").message == "no such file"

    def test_taints_queues_and_policies(self, driver: SchedulerDriver) -> None:
        driver.spawn("gpu", "plain", where={"gpu": GPU})
        driver.crash()
        plain = driver.worker("plain")
        assert plain.held.keys() == {"plain"}
        able = driver.worker("able", tolerations={"GPU"})
        assert able.held.keys() == {"gpu"}

    def test_runs_deaths_and_losses_so_far(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", of=retrying(3))
        for blow in ("fail", "die", "vanish", "fail", "die"):
            hand = driver.worker()
            match blow:
                case "fail":
                    hand.fail("a")
                case "die":
                    hand.child_dies(["a"])
            hand.vanish()
            hand.held.clear()
            driver.crash()
        row = driver.ledger.progress[driver.key("a")]
        assert (row.failed_attempts, row.crashes) == (2, 2)
        hand = driver.worker()
        hand.fail("a")
        assert driver.failure("a").attempts == 3

    def test_an_instance_that_waits_for_nothing_is_not_read_back(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a")
        hand.complete("a")
        driver.crash()
        assert driver.in_memory() == {}
        assert driver.scheduler.graph.next_node == 2 + KEYS_LEFT_OUT
        assert driver.scheduler.graph.next_instance == 2

    @pytest.mark.parametrize("crashes", range(4))
    def test_any_number_of_restarts(self, driver: SchedulerDriver, crashes: int) -> None:
        hand = driver.worker()
        driver.spawn("a", "b <- a", "c <- a b", where={"b": retrying(2, 1.0)})
        for name in ("a", "b"):
            (hand.complete if name == "a" else hand.fail)(name)
            for _ in range(crashes):
                driver.crash()
            if crashes:
                hand.connect()
        driver.wait(1.0)
        assert driver.finish(hand) == ["b", "c"]
        assert driver.ledger.epoch == 1 + 2 * crashes


class TestWhatTheRowsSay:
    """What would be forgotten, or counted twice, if a row had not a column for it."""

    def test_an_instance_that_has_failed_ends_as_failed(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        instance = driver.spawn("a", "b")
        hand.fail("a")
        driver.crash()
        hand.held.clear()
        hand.connect()
        hand.complete("b")
        assert driver.ledger.instance(instance)[1]

    def test_a_failure_that_was_recorded_is_not_counted_again(self, driver: SchedulerDriver) -> None:
        """Its worker did not hear that it was, and says it once more."""
        hand = driver.worker()
        driver.spawn("a", of=retrying(3))
        attempt = hand.held["a"]
        hand.drain()
        hand.fail("a")
        driver.crash()
        hand.held["a"] = attempt
        hand.connect()
        hand.fail("a", attempt=attempt)
        assert driver.ledger.progress[driver.key("a")].failed_attempts == 1


class TestBackoff:
    def restarted(self, driver: SchedulerDriver, downtime: float, jump: float = 0.0) -> float:
        """Seconds from the restart to the next run of a node that was to pause for ten."""
        hand = driver.worker()
        driver.spawn("a", of=retrying(3, 10.0))
        hand.fail("a")
        driver.wait(4.0)
        driver.wall += jump
        driver.crash(downtime)
        restarted_at = driver.now
        hand.connect()
        while not hand.held:
            assert driver.next_tick is not None
            driver.wait(driver.next_tick - driver.now)
            hand.beat()
        return driver.now - restarted_at

    def test_goes_on_where_it_was(self, driver: SchedulerDriver) -> None:
        assert self.restarted(driver, downtime=0.0) == pytest.approx(6.0)

    def test_a_pause_passes_while_the_broker_is_down(self, driver: SchedulerDriver) -> None:
        assert self.restarted(driver, downtime=5.0) == pytest.approx(1.0)

    def test_a_pause_that_ended_while_the_broker_was_down_is_over(self, driver: SchedulerDriver) -> None:
        assert self.restarted(driver, downtime=60.0) == 0.0

    def test_is_never_longer_than_the_pause_though_the_clock_went_back(self, driver: SchedulerDriver) -> None:
        assert self.restarted(driver, downtime=0.0, jump=-366 * 86_400.0) == pytest.approx(10.0)

    def test_a_pause_is_over_when_the_clock_went_forward(self, driver: SchedulerDriver) -> None:
        assert self.restarted(driver, downtime=0.0, jump=366 * 86_400.0) == 0.0

    def test_a_pause_that_is_over_does_not_keep_a_worker_from_what_it_holds(self, driver: SchedulerDriver) -> None:
        """The row of a pause stays when the next run is granted."""
        hand = driver.worker()
        driver.spawn("a", of=retrying(3, 1.0))
        hand.fail("a")
        driver.wait(1.0)
        attempt = hand.held["a"]
        driver.holds_still = True  # the worker is back before the broker's first step
        driver.crash()
        hand.connect()
        driver.holds_still = False
        driver.step()
        assert hand.held == {"a": attempt}
        assert hand.complete("a")


class TestReclaim:
    def test_a_surviving_worker_keeps_what_it_holds_and_its_result_counts(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", "b", "c <- a b")
        attempts = dict(hand.held)
        driver.crash()
        hand.connect()
        assert hand.held == attempts
        assert hand.complete("a")
        assert hand.complete("b")
        assert hand.held.keys() == {"c"}
        assert driver.outcome("a").attempt == attempts["a"]

    def test_a_claim_of_two_epochs_ago_stands_if_no_other_worker_was_granted_the_node(
        self, driver: SchedulerDriver
    ) -> None:
        hand = driver.worker()
        driver.spawn("a")
        driver.crash()
        driver.crash()
        hand.connect()
        assert hand.complete("a")

    def test_a_reclaimed_claim_stands_through_a_lost_connection(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a")
        driver.crash()
        hand.connect()
        hand.vanish()
        hand.connect()
        assert hand.complete("a")

    def test_a_claim_from_before_the_restart_is_refused_once_the_node_was_granted_again(
        self, driver: SchedulerDriver
    ) -> None:
        hand = driver.worker("first")
        driver.spawn("a")
        attempt = hand.held["a"]
        driver.crash()
        driver.wait(2.0)
        second = driver.worker("second")
        hand.connect()
        assert hand.refused == [attempt]
        assert second.complete("a")

    def test_a_node_that_has_ended_is_refused(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b <- a")
        attempt = hand.held["a"]
        hand.complete("a", value=b"recorded")
        driver.crash()
        hand.held = {"a": attempt}
        hand.connect()
        assert hand.refused == [attempt]
        assert driver.outcome("a").value == b"recorded"

    def test_the_later_of_two_earlier_claims_stands_in_either_order(self, driver: SchedulerDriver) -> None:
        """One worker was silent past its lease, another was given the node; then the broker died."""
        silent, holder = driver.worker("silent"), driver.worker("holder")
        driver.spawn("a")
        assert silent.held
        silent.vanish()
        assert holder.held["a"] > silent.held["a"]
        driver.crash()
        earlier = silent.held["a"]
        silent.connect()
        assert driver.holders() == {"a": "silent"}
        silent.make("a", "child of silent")
        holder.connect()
        assert driver.holders() == {"a": "holder"}
        assert silent.refused == [earlier]
        assert not silent.complete("a", attempt=earlier)
        assert holder.complete("a")
        assert not driver.is_visible("child of silent")

    def test_the_earlier_of_two_earlier_claims_falls_when_it_comes_second(self, driver: SchedulerDriver) -> None:
        silent, holder = driver.worker("silent"), driver.worker("holder")
        driver.spawn("a")
        silent.vanish()
        driver.crash()
        earlier = silent.held["a"]
        holder.connect()
        silent.connect()
        assert silent.refused == [earlier]
        assert driver.holders() == {"a": "holder"}


class TestHoldingOff:
    def test_nothing_is_handed_out_until_the_workers_on_record_are_back(self, driver: SchedulerDriver) -> None:
        one, two = driver.worker("one"), driver.worker("two")
        driver.spawn("a", "b", "c")
        driver.crash()
        stranger = driver.worker("stranger")
        assert not stranger.held
        one.connect()
        assert not stranger.held
        two.connect()
        assert stranger.held.keys() == {"c"}
        assert driver.holders() == {"a": "one", "b": "two", "c": "stranger"}

    def test_nodes_are_handed_out_two_seconds_after_a_restart_at_the_latest(self, driver: SchedulerDriver) -> None:
        driver.worker("gone")
        driver.spawn("a")
        driver.crash()
        hand = driver.worker("other")
        driver.wait(1.9)
        assert not hand.held
        assert driver.next_tick == pytest.approx(driver.now + 0.1)
        driver.wait(0.1)
        assert hand.held.keys() == {"a"}

    def test_nodes_are_handed_out_at_once_if_no_worker_is_on_record(self, driver: SchedulerDriver) -> None:
        driver.worker("gone").vanish()
        driver.spawn("a")
        driver.crash()
        assert driver.worker("other").held.keys() == {"a"}

    def test_how_long_is_a_setting(self) -> None:
        driver = SchedulerDriver(timing=Timing(reconnect_wait=0.0))
        driver.worker("gone")
        driver.spawn("a")
        driver.crash()
        assert driver.worker("other").held.keys() == {"a"}

    def test_a_broker_that_dies_again_meanwhile_still_knows_whom_to_wait_for(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a")
        driver.crash()
        driver.wait(1.0)
        driver.crash()
        other = driver.worker("other")
        assert not other.held
        hand.connect()
        assert driver.holders() == {"a": "worker"}

    def test_a_worker_that_has_not_returned_in_time_is_not_waited_for_again(self, driver: SchedulerDriver) -> None:
        driver.worker("gone")
        driver.spawn("a")
        driver.crash()
        driver.wait(2.0)
        driver.crash()
        assert driver.worker("other").held.keys() == {"a"}

    def test_the_originals_workers_wait_too(self, driver: SchedulerDriver) -> None:
        driver.worker("gone")
        driver.spawn("a", of=function("old", protocol=WireProtocol.LEGACY))
        driver.crash()
        theirs = driver.worker("theirs", protocol=WireProtocol.LEGACY)
        assert theirs.ask() is None
        driver.wait(2.0)
        assert theirs.ask() == "a"


class TestWhatAStoreMightHold:
    """Not written by this scheduler, but nothing may wait without end because of it."""

    def test_a_value_whose_promises_have_ended_is_complete(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("parent", "user <- parent")
        hand.make("parent", "child")
        hand.complete("parent", "child")
        hand.complete("child")
        key = driver.key("parent")
        driver.ledger.outcomes[key] = driver.ledger.outcomes[key]._replace(state=State.RESOLVING)
        driver.crash()
        assert driver.states("parent", "user") == ["COMPLETED", "QUEUED"]

    def test_a_node_whose_source_has_failed_fails(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b <- a", "c <- b")
        hand.fail("a")
        for name in "bc":
            del driver.ledger.outcomes[driver.key(name)]
        driver.crash()
        assert driver.states("b", "c") == ["FAILED", "FAILED"]
        assert driver.root_cause("c") == "a"


class TestLossesOnRecord:
    """A loss that one broker has counted, and the worker that presents the attempt to the next."""

    def test_is_taken_back_if_the_worker_returns_to_the_next_broker(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a")
        hand.vanish()
        assert driver.ledger.progress[driver.key("a")].worker_losses == 1
        driver.crash()
        hand.connect()
        assert driver.ledger.progress[driver.key("a")].worker_losses == 0
        assert hand.complete("a")

    def test_is_taken_back_once(self, driver: SchedulerDriver) -> None:
        hand = driver.worker("first")
        driver.spawn("a")
        hand.vanish(), hand.held.clear()
        hand = driver.worker("second")
        for _ in range(3):
            hand.vanish()
            hand.connect()
            driver.crash()
            hand.connect()
        assert driver.ledger.progress[driver.key("a")].worker_losses == 1
        assert hand.complete("a")

    def test_stands_for_a_node_that_was_granted_since(self, driver: SchedulerDriver) -> None:
        first = driver.worker("first")
        driver.spawn("a")
        first.vanish()
        second = driver.worker("second")
        driver.crash()
        second.connect()
        first.connect()
        assert first.refused
        assert driver.ledger.progress[driver.key("a")].worker_losses == 1
        assert second.complete("a")


class TestIdsThatAreNotProven:
    def test_do_not_end_the_session_of_a_connected_worker(self, driver: SchedulerDriver) -> None:
        hand = driver.worker("worker")
        driver.spawn("a")
        with pytest.raises(FailedPrecondition, match="cannot prove that the ID is its own"):
            driver.worker("worker", is_proven=False)
        assert hand.complete("a")

    def test_are_not_waited_for_and_do_not_stand_for_who_is(self, driver: SchedulerDriver) -> None:
        hand = driver.worker("worker")
        driver.spawn("a")
        driver.crash()
        thief = driver.worker("worker", is_proven=False)
        assert driver.scheduler.awaited == {hand.presence.id}
        hand.connect()
        assert not thief.held
        assert hand.complete("a")
        driver.worker("stranger", is_proven=False)
        driver.crash()
        assert driver.scheduler.awaited == {hand.presence.id}


def test_a_failure_that_a_crash_cut_short_reaches_the_rest_and_no_other_source_makes_it_ready() -> None:
    driver = SchedulerDriver(limits=Limits(step=1))
    driver.spawn("fails", "first <- fails", "second <- fails", "tolerated <- fails", "last <- tolerated? fails")
    driver.worker().fail("fails")
    assert driver.states("first", "second", "tolerated", "last") == ["FAILED", "FAILED", "WAITING", "WAITING"]
    driver.crash()
    driver.settle()
    assert driver.states("tolerated", "last") == ["FAILED", "FAILED"]
    assert driver.in_memory() == {}


def test_a_restart_starts_the_nodes_of_a_large_call_that_had_not_been_started() -> None:
    driver = SchedulerDriver(limits=Limits(step=1))
    run = driver.run(driver.fresh(16), driver.fresh(12), ["a", "b", "c <- a b"])
    run.creates = ("work:Work", run.origin + bytes(4))
    for _ in driver.submit_in_slices(run):
        pass
    assert driver.states("a", "b", "c") == ["QUEUED", "WAITING", "WAITING"]
    driver.crash()
    assert driver.states("a", "b", "c") == ["QUEUED", "QUEUED", "WAITING"]
    assert driver.finish(driver.worker()) == ["a", "b", "c"]


def test_a_crash_before_a_large_call_is_decided_leaves_nothing_of_it() -> None:
    driver = SchedulerDriver(limits=Limits(step=1))
    run = driver.run(driver.fresh(16), driver.fresh(12), ["a", "b"])
    run.creates = ("work:Work", run.origin + bytes(4))
    slices = driver.submit_in_slices(run)
    while not driver.ledger.nodes:
        assert not next(slices)
        driver.step()
    driver.crash()
    assert driver.in_memory() == {}
    assert not driver.ledger.nodes
    assert not driver.is_visible("a")
