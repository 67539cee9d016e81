"""Workers come, fall silent, die, leave and come back."""

import pytest

from dagorama_broker.errors import FailedPrecondition, InvalidArgument
from dagorama_broker.model.domain import State, WireProtocol
from dagorama_broker.scheduler import Limits, Timing
from tests.support.driver import GPU, Hand, SchedulerDriver, function, retrying

ORIGINAL = function("old", protocol=WireProtocol.LEGACY)


class TestLeases:
    def test_a_silent_worker_is_lost_after_its_lease_and_not_before(self, driver: SchedulerDriver) -> None:
        silent = driver.worker("silent")
        driver.spawn("a")
        driver.wait(29.9)
        assert silent.held
        assert driver.holders() == {"a": "silent"}
        driver.wait(0.2)
        assert driver.holders() == {}
        assert driver.worker("other").held.keys() == {"a"}
        assert driver.ledger.progress[driver.key("a")].worker_losses == 1

    def test_a_worker_that_is_heard_keeps_what_it_holds(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a")
        for _ in range(20):
            driver.wait(10.0)
            hand.beat()
        assert driver.holders() == {"a": "worker"}

    @pytest.mark.parametrize("lease", [0.5, 2.0, 30.0])
    def test_a_lease_of_any_length_runs_out_though_nothing_else_happens(self, lease: float) -> None:
        """What could go wrong: each tick comes so late that the broker thinks it stood still itself."""
        driver = SchedulerDriver(timing=Timing(lease=lease))
        driver.worker()
        driver.spawn("a")
        driver.wait(lease * 1.1)
        assert driver.holders() == {}

    def test_the_originals_worker_is_held_to_its_pings(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(protocol=WireProtocol.LEGACY)
        driver.spawn("a", of=ORIGINAL)
        assert hand.ask() == "a"
        driver.wait(89.0)
        assert driver.holders() == {"a": "worker"}
        driver.wait(2.0)
        assert driver.holders() == {}

    @pytest.mark.parametrize("seconds", [16.0, 90.0, 3_600.0, 366 * 86_400.0])
    def test_a_suspended_broker_evicts_no_worker(self, driver: SchedulerDriver, seconds: float) -> None:
        hands = [driver.worker(f"w{number}") for number in range(5)]
        driver.spawn(*"abcde")
        driver.pass_time(seconds)
        driver.step()
        assert len(driver.holders()) == 5
        for _ in range(3):
            for hand in hands[1:]:
                hand.beat()
            driver.wait(9.9)
        assert "w0" in driver.holders().values()
        driver.wait(1.0)
        assert "w0" not in driver.holders().values(), "who is silent from then on is lost"
        assert len(driver.scheduler.claims.workers) == 4

    @pytest.mark.parametrize("seconds", [90.0, 3_600.0])
    def test_a_retry_that_fell_due_while_the_broker_stood_still_runs_when_it_goes_on(
        self, driver: SchedulerDriver, seconds: float
    ) -> None:
        hand = driver.worker()
        driver.spawn("a", "b <- a", of=retrying(2, 5.0))
        hand.fail("a")
        driver.pass_time(seconds)
        assert driver.state("a") is State.BACKOFF
        driver.step()
        assert driver.finish(hand) == ["a", "b"]

    def test_a_wall_clock_that_jumps_moves_no_lease_and_no_retry(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", "b", where={"b": retrying(2, 5.0)})
        hand.fail("b")
        for jump in (3_600.0, -366 * 86_400.0):
            driver.wall += jump
            driver.step()
            assert driver.holders() == {"a": "worker"}
            assert driver.state("b") is State.BACKOFF
        driver.wait(5.0)
        assert driver.state("b") is State.CLAIMED


class TestLosses:
    def test_count_apart_from_runs_and_deaths(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=retrying(2))
        hand.vanish(), hand.held.clear(), hand.connect()
        hand.child_dies(["a"])
        hand.fail("a")
        row = driver.ledger.progress[driver.key("a")]
        assert (row.failed_attempts, row.crashes, row.worker_losses) == (1, 1, 1)
        assert hand.complete("a")

    def test_end_in_the_failure_of_a_node_that_takes_every_worker_along(self) -> None:
        driver = SchedulerDriver(limits=Limits(losses=3))
        driver.spawn("a", "b <- a")
        for number in range(3):
            assert driver.state("a") is State.QUEUED
            driver.worker(f"w{number}").vanish()
        assert driver.states("a", "b") == ["FAILED", "FAILED"]
        failure = driver.failure("b")
        assert (failure.type, failure.attempts) == ("dagorama.errors.WorkerLost", 3)
        assert "3 workers or connections were lost" in failure.message

    def test_a_worker_that_returns_with_its_attempt_never_lost_the_node(self) -> None:
        driver = SchedulerDriver(limits=Limits(losses=3))
        hand = driver.worker()
        driver.spawn("a")
        for _ in range(10):
            hand.vanish()
            assert driver.ledger.progress[driver.key("a")].worker_losses == 1
            hand.connect()
            assert driver.ledger.progress[driver.key("a")].worker_losses == 0
        assert hand.complete("a")

    def test_a_worker_that_reconnects_before_its_loss_was_noticed_never_lost_the_node(self) -> None:
        driver = SchedulerDriver(limits=Limits(losses=3))
        hand = driver.worker()
        driver.spawn("a")
        for _ in range(10):
            hand.connect()
        assert driver.ledger.progress[driver.key("a")].worker_losses == 0
        assert hand.complete("a")

    def test_a_worker_that_returns_after_its_lease_never_lost_the_node(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a")
        driver.wait(31.0)
        assert driver.ledger.progress[driver.key("a")].worker_losses == 1
        hand.connect()
        assert driver.ledger.progress[driver.key("a")].worker_losses == 0
        assert hand.complete("a")

    def test_a_loss_stands_if_the_node_was_granted_since(self, driver: SchedulerDriver) -> None:
        first, second = driver.worker("first"), driver.worker("second")
        driver.spawn("a")
        holder, other = (first, second) if first.held else (second, first)
        holder.vanish()
        holder.connect()
        assert holder.refused
        assert driver.ledger.progress[driver.key("a")].worker_losses == 1
        assert other.complete("a")

    def test_a_connection_that_breaks_often_is_given_time_to_come_back_before_others_get_the_node(
        self, driver: SchedulerDriver
    ) -> None:
        hands = [driver.worker("first"), driver.worker("second")]
        driver.spawn("a")
        for _ in range(9):
            (holder,) = (hand for hand in hands if hand.held)
            holder.vanish(), holder.held.clear(), holder.connect()
            assert driver.holders(), "another has it at once"
        (holder,) = (hand for hand in hands if hand.held)
        for _ in range(30):
            holder.vanish()
            assert driver.states("a") == ["BACKOFF"]
            driver.wait(1.9)
            holder.connect()
            for hand in hands:
                hand.beat()
            assert driver.holders() == {"a": holder.presence.name}
        assert driver.ledger.progress[driver.key("a")].worker_losses == 9
        holder.vanish()
        driver.wait(2.1)
        assert driver.holders()
        assert driver.finish(*(hand for hand in hands if hand is not holder)) == ["a"]

    def test_a_worker_that_breaks_often_may_come_back_to_the_next_broker(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a")
        for _ in range(9):
            hand.vanish(), hand.held.clear(), hand.connect()
        hand.vanish()
        driver.crash()
        assert driver.states("a") == ["BACKOFF"]
        hand.connect()
        assert driver.ledger.progress[driver.key("a")].worker_losses == 9
        assert hand.complete("a")

    def test_only_the_loss_of_the_attempt_that_returns_is_taken_back(self, driver: SchedulerDriver) -> None:
        first = driver.worker("first")
        driver.spawn("a")
        first.vanish()
        second = driver.worker("second")
        second.vanish()
        assert driver.ledger.progress[driver.key("a")].worker_losses == 2
        first.connect()
        assert first.refused
        assert driver.ledger.progress[driver.key("a")].worker_losses == 2

    def test_a_worker_that_vanishes_gives_back_all_that_it_held(self, driver: SchedulerDriver) -> None:
        driver.worker("gone", slots=3).vanish()
        hand = driver.worker("gone", slots=3)
        driver.spawn("a", "b", "c")
        hand.vanish()
        assert driver.states("a", "b", "c") == ["QUEUED"] * 3
        assert driver.in_memory() == {"nodes": 3, "instances": 1, "origins": 1, "active queues": 1}

    def test_a_worker_that_is_gone_changes_nothing_by_going_again(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a")
        hand.vanish()
        before = driver.everything()
        driver.scheduler.disconnect(hand.worker, driver.now)
        driver.scheduler.leave(hand.worker)
        assert driver.everything() == before


class TestDeaths:
    def test_three_of_the_child_process_fail_the_node_with_the_cause(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b <- a", of=retrying(10))
        for cause in ("killed by SIGSEGV", "exited with code 3"):
            hand.child_dies(["a"], cause=cause)
            assert driver.state("a") is State.CLAIMED
        hand.child_dies(["a"], cause="killed by SIGKILL, peak memory 900 MB")
        assert driver.states("a", "b") == ["FAILED", "FAILED"]
        failure = driver.failure("b")
        assert (failure.type, failure.attempts) == ("dagorama.errors.ProcessDied", 3)
        assert "ended 3 times while it ran" in failure.message
        assert "SIGKILL, peak memory 900 MB" in failure.message

    def test_do_not_count_for_what_only_waited(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("warm")
        hand.complete("warm", us=50)
        driver.spawn("root cause", "waits", "waits too")
        for _ in range(3):
            hand.child_dies(running=["root cause"], unstarted=["waits", "waits too"])
        assert driver.state("root cause") is State.FAILED
        assert driver.states("waits", "waits too") == ["CLAIMED", "CLAIMED"]
        assert not driver.ledger.progress.keys() & {driver.key("waits"), driver.key("waits too")}

    def test_are_the_workers_own_to_report(self, driver: SchedulerDriver) -> None:
        hand, other = driver.worker("one"), driver.worker("other")
        driver.spawn("a", "b")
        hand.held["b"] = other.held["b"]
        hand.child_dies(running=["b"])
        hand.held["b"] = other.held["b"]
        hand.child_dies(unstarted=["b"])
        assert driver.holders() == {"a": "one", "b": "other"}
        assert not driver.ledger.progress

    def test_reported_twice_count_once(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a")
        attempt = hand.held["a"]
        driver.scheduler.died(hand.worker, [attempt, attempt], [attempt], "SIGSEGV", driver.now)
        driver.scheduler.died(hand.worker, [attempt], [], "SIGSEGV", driver.now)
        driver.step()
        assert not driver.ledger.progress, "what is named as unstarted was given back first"
        attempt = hand.held["a"]
        driver.scheduler.died(hand.worker, [attempt, attempt], [], "SIGSEGV", driver.now)
        driver.step()
        assert driver.ledger.progress[driver.key("a")].crashes == 1


class TestComingBack:
    def test_a_worker_that_reconnects_keeps_nodes_that_were_not_granted_since(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", "b")
        attempts = dict(hand.held)
        hand.vanish()
        hand.connect()
        assert hand.held == attempts
        assert hand.complete("a")
        assert hand.complete("b")

    def test_a_worker_that_was_cut_off_for_a_minute_goes_on(self, driver: SchedulerDriver) -> None:
        """Nothing comes through, and neither end hears that the connection is gone."""
        hand = driver.worker("cut off", slots=2)
        driver.spawn("a", "b")
        attempts = dict(hand.held)
        driver.wait(31.0)
        other = driver.worker("other", slots=1)
        (taken,) = other.held
        for _ in range(3):
            driver.wait(9.9)
            other.beat()
        hand.connect()
        assert hand.refused == [attempts[taken]]
        assert hand.complete(*attempts.keys() - {taken})
        driver.spawn("new")
        assert "new" in hand.held

    def test_a_worker_that_connects_twice_keeps_what_it_holds(self, driver: SchedulerDriver) -> None:
        """The broker has not noticed yet that the first connection is gone."""
        hand = driver.worker()
        driver.spawn("a")
        hand.connect()
        assert not hand.refused
        assert hand.complete("a")

    def test_a_node_that_was_granted_since_is_refused(self, driver: SchedulerDriver) -> None:
        hand = driver.worker("first")
        driver.spawn("a")
        attempt = hand.held["a"]
        hand.vanish()
        second = driver.worker("second")
        hand.connect()
        assert hand.refused == [attempt]
        second.vanish()
        hand.held["a"] = attempt
        hand.connect()
        assert hand.refused == [attempt, attempt], "also when nobody holds it now"

    @pytest.mark.parametrize("end", ["failed", "was given back", "died"])
    def test_an_attempt_that_came_to_an_end_is_not_taken_up_again(self, driver: SchedulerDriver, end: str) -> None:
        """Its worker did not hear that the end was recorded; to take it up would count it twice."""
        hand = driver.worker()
        driver.spawn("a", of=retrying(2))
        attempt = hand.held["a"]
        hand.drain()
        match end:
            case "failed":
                hand.fail("a")
            case "was given back":
                hand.give_back("a")
            case "died":
                hand.child_dies(["a"])
        assert driver.state("a") is State.QUEUED
        with driver.at_once():
            hand.vanish()
            hand.held["a"] = attempt
            hand.connect()
            hand.drain()
        assert hand.refused == [attempt]
        assert driver.state("a") is State.QUEUED

    @pytest.mark.parametrize("slot", [2, 1 << 40, -1])
    def test_a_slot_that_the_worker_does_not_have_is_refused(self, driver: SchedulerDriver, slot: int) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a")
        hand.vanish()
        hand.slot_of["a"] = slot
        attempt = hand.held["a"]
        with driver.at_once():
            hand.connect()
            hand.drain()
        assert hand.refused == [attempt]
        assert driver.state("a") is State.QUEUED

    def test_what_never_was_is_refused_and_nothing_has_changed(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b <- a", "c", of=GPU)
        current = driver.scheduler.claims.first_attempt + 7
        for key, attempt in [(99, 7), (driver.key("a"), current), (driver.key("b"), 7), (driver.key("c"), 0)]:
            before = driver.everything()
            driver.scheduler._take_up(hand.worker, key, attempt, 0, driver.now)
            assert driver.everything() == before
        driver.step()
        assert hand.refused == [7, current, 7, 0]

    def test_presenting_a_node_twice_is_presenting_it_once(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a")
        held = [(driver.key("a"), hand.held["a"], 0)] * 2
        with driver.at_once():
            hand.vanish()
            hand.worker = driver.scheduler.connect(hand.presence, held, driver.now)
            driver.hands[hand.worker] = hand
        assert not hand.refused
        assert hand.complete("a")

    def test_a_worker_of_the_other_world_takes_up_nothing(self, driver: SchedulerDriver) -> None:
        theirs = driver.worker("theirs", protocol=WireProtocol.LEGACY)
        driver.spawn("a", of=ORIGINAL)
        theirs.ask()
        attempt = theirs.held["a"]
        theirs.vanish()
        ours = driver.worker("ours")
        driver.scheduler._take_up(ours.worker, driver.key("a"), attempt, 0, driver.now)
        driver.step()
        assert ours.refused == [attempt]

    def test_a_worker_is_on_record_while_it_is_connected(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        assert list(driver.ledger.workers.values()) == ["worker"]
        with driver.at_once():
            hand.vanish()
            hand.connect()
        assert list(driver.ledger.workers.values()) == ["worker"], "though it left and joined in one step"
        with driver.at_once():
            hand.connect()
            hand.vanish()
        assert not driver.ledger.workers, "though it joined and left in one step"
        driver.worker("theirs", protocol=WireProtocol.LEGACY)
        assert not driver.ledger.workers, "the original's workers do not come back"


class TestLeaving:
    def test_a_draining_worker_takes_nothing_more_and_finishes_what_it_holds(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "b")
        hand.drain()
        assert hand.complete("a")
        assert not hand.held
        assert driver.worker("other").held.keys() == {"b"}

    def test_drained_is_not_the_first_empty_moment(self, driver: SchedulerDriver) -> None:
        busy = driver.worker("busy")
        driver.spawn("parent")
        patient = driver.worker("patient", leave_when_drained=True)
        assert not patient.held
        assert not patient.may_leave, "the other runs a node that may create more"
        busy.make("parent", "x", "y")
        busy.complete("parent")
        assert patient.held
        busy.complete(next(iter(busy.held)))
        assert not patient.may_leave
        patient.complete(next(iter(patient.held)))
        assert patient.may_leave

    def test_idle_is_the_first_empty_moment(self, driver: SchedulerDriver) -> None:
        busy = driver.worker("busy")
        driver.spawn("a", "b <- a", "c")
        hand = driver.worker("hand", leave_when_idle=True)
        assert hand.held.keys() == {"c"}
        assert not hand.may_leave
        hand.complete("c")
        assert hand.may_leave
        assert busy.held.keys() == {"a"}

    def test_a_node_in_backoff_keeps_the_graph_from_being_drained(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", of=retrying(2, 5.0))
        hand = driver.worker(leave_when_drained=True)
        hand.fail("a")
        assert driver.state("a") is State.BACKOFF
        assert not hand.may_leave
        driver.wait(5.0)
        hand.complete("a")
        assert hand.may_leave

    def test_another_workers_node_in_backoff_may_lead_to_more(self, driver: SchedulerDriver) -> None:
        able = driver.worker("able", tolerations={"GPU"})
        driver.spawn("gpu", "after <- gpu", where={"gpu": function("gpu", taint="GPU", retry=retrying(2, 5.0).retry)})
        hand = driver.worker("hand", leave_when_drained=True)
        able.fail("gpu")
        assert not hand.may_leave
        able.vanish()
        driver.step()
        assert hand.may_leave, "nobody is left who could run it"

    def test_what_waits_for_promises_is_drained_only_when_they_are_kept(self, driver: SchedulerDriver) -> None:
        hand, other = driver.worker("hand"), driver.worker("other")
        driver.spawn("parent", "user <- parent")
        hand.make("parent", "child")
        patient = driver.worker("patient", leave_when_drained=True)
        hand.complete("parent", "child")
        assert driver.states("parent", "user") == ["RESOLVING", "WAITING"]
        assert not patient.may_leave
        assert driver.finish(hand, other, patient) == ["child", "user"]
        assert patient.may_leave

    def test_nodes_that_no_worker_here_may_run_do_not_count(self, driver: SchedulerDriver) -> None:
        driver.spawn("gpu", "after <- gpu", where={"gpu": GPU})
        assert driver.worker(leave_when_drained=True).may_leave

    def test_the_originals_work_leads_to_nothing_of_ours(self, driver: SchedulerDriver) -> None:
        theirs = driver.worker("theirs", protocol=WireProtocol.LEGACY)
        driver.spawn("a", of=ORIGINAL)
        theirs.ask()
        assert driver.worker("ours", leave_when_drained=True).may_leave

    def test_a_worker_that_may_leave_is_given_nothing_more(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(leave_when_drained=True)
        assert hand.may_leave
        driver.spawn("a")
        assert not hand.held
        assert driver.worker("other").held

    def test_what_a_worker_refuses_does_not_hold_it_up(self, driver: SchedulerDriver) -> None:
        driver.spawn("a", "b")
        hand = driver.worker(leave_when_drained=True)
        hand.give_back("a", "it cannot import the function")
        assert hand.may_leave


def test_the_originals_workers_are_served_one_at_a_time(driver: SchedulerDriver) -> None:
    hand = driver.worker(protocol=WireProtocol.LEGACY)
    driver.spawn("a", "b <- a", "c", of=ORIGINAL)
    assert not hand.held
    assert hand.ask() == "a"
    hand.complete("a")
    assert [hand.ask(), hand.ask(), hand.ask()] == ["b", "c", None]
    attempt = hand.held["b"]
    node = driver.scheduler.graph.find(driver.ids["b"])
    assert node is not None
    assert driver.scheduler.attempt_of(hand.worker, node) == attempt


def test_the_originals_retry_is_not_claimed_while_it_waits(driver: SchedulerDriver) -> None:
    hand = driver.worker(protocol=WireProtocol.LEGACY)
    driver.spawn("a", of=function("old", protocol=WireProtocol.LEGACY, retry=retrying(2, 5.0).retry))
    hand.ask()
    hand.fail("a")
    node = driver.scheduler.graph.find(driver.ids["a"])
    assert node is not None
    with pytest.raises(FailedPrecondition):
        driver.scheduler.attempt_of(hand.worker, node)


def test_a_hand_is_told_only_what_is_its(driver: SchedulerDriver) -> None:
    hands: list[Hand] = [driver.worker(f"w{number}") for number in range(3)]
    driver.spawn("a", "b", "c")
    assert [list(hand.held) for hand in hands] == [["a"], ["b"], ["c"]]


class TestASlotThatIsGoneForGood:
    def test_is_granted_nothing_more(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        hand.close_slot(0)
        driver.spawn("a", "b")
        assert hand.slot_of == {"a": 1}
        hand.complete("a")
        assert hand.slot_of == {"a": 1, "b": 1}

    def test_gives_back_what_it_held_at_once_and_uncounted(self, driver: SchedulerDriver) -> None:
        hand, other = driver.worker(slots=2), driver.worker("other", include_queues={"work"})
        driver.spawn("a", "b", "c")
        attempt = hand.held["a"]
        hand.close_slot(0)
        assert hand.held.keys() == {"b"}
        other.complete("c")
        assert driver.holders() == {"a": "other", "b": "worker"}
        assert not hand.complete("a", attempt=attempt)
        assert driver.key("a") not in driver.ledger.progress

    def test_stays_so_when_the_worker_refuses_a_function(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        hand.close_slot(1)
        driver.spawn("a", of=function("other"))
        hand.give_back("a", "it cannot import the function")
        driver.spawn("b", "c")
        assert hand.held.keys() == {"b"}

    def test_is_there_again_when_the_worker_connects_again(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        hand.close_slot(1)
        hand.connect()
        driver.spawn("a", "b")
        assert hand.held.keys() == {"a", "b"}

    def test_has_to_be_one_of_the_workers(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        with pytest.raises(InvalidArgument, match="2 slots"):
            driver.scheduler.close_slot(hand.worker, 2, driver.now)


class TestOverruns:
    """Case 21: a worker that goes on beating but does not stop a run at its timeout is not trusted forever."""

    TIMED = function("timed", timeout=5.0)

    def beat_for(self, driver: SchedulerDriver, hand: Hand, seconds: int) -> None:
        for _ in range(seconds):
            driver.wait(1.0)
            hand.beat()

    def test_the_node_goes_to_another_a_lease_after_its_timeout(self, driver: SchedulerDriver) -> None:
        hung = driver.worker("hung")
        driver.spawn("a", of=self.TIMED)
        attempt = hung.held["a"]
        self.beat_for(driver, hung, 34)
        assert driver.holders() == {"a": "hung"}
        self.beat_for(driver, hung, 3)
        assert hung.refused == [attempt]
        other = driver.worker("other")
        assert other.complete("a")
        assert not hung.complete("a", attempt=attempt)

    def test_its_slot_is_given_nothing_more(self, driver: SchedulerDriver) -> None:
        hung = driver.worker("hung")
        driver.spawn("a", of=self.TIMED)
        self.beat_for(driver, hung, 40)
        driver.spawn("b")
        assert driver.states("a", "b") == ["QUEUED", "QUEUED"]

    def test_a_node_that_waits_behind_a_long_run_is_not_taken_for_one_that_hangs(self, driver: SchedulerDriver) -> None:
        hand = driver.worker("busy")
        driver.spawn("warm", "warm too", where={"warm": self.TIMED})
        hand.complete("warm", us=100)
        hand.complete("warm too", us=100)
        driver.spawn("long", "timed", where={"timed": self.TIMED})
        assert list(hand.held) == ["long", "timed"]
        self.beat_for(driver, hand, 120)
        assert list(hand.held) == ["long", "timed"]
        hand.complete("long", us=100)
        self.beat_for(driver, hand, 34)
        assert list(hand.held) == ["timed"], "its time began when the long run had ended"
        self.beat_for(driver, hand, 60)
        assert not hand.held

    def test_runs_that_end_in_time_are_not_remembered_until_their_time_would_have_come(
        self, driver: SchedulerDriver
    ) -> None:
        hand = driver.worker()
        driver.spawn(*[f"n{number}" for number in range(500)], of=self.TIMED)
        driver.finish(hand)
        assert len(driver.scheduler.claims.overruns) <= 2 * 2 + 64

    def test_a_standstill_of_the_broker_is_no_fault_of_the_workers(self, driver: SchedulerDriver) -> None:
        hand = driver.worker("fine")
        driver.spawn("a", of=self.TIMED)
        driver.pass_time(3_600.0)
        driver.step()
        assert hand.complete("a")
