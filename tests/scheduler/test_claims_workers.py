"""Workers come, fall silent, die, leave and come back."""

import pytest

from dagorama_broker.errors import FailedPrecondition, InvalidArgument
from dagorama_broker.model.domain import State, WireProtocol
from dagorama_broker.scheduler import Limits, Timing
from tests.support.driver import GPU, Hand, Heart, function, retrying

ORIGINAL = function("old", protocol=WireProtocol.LEGACY)


class TestLeases:
    def test_a_silent_worker_is_lost_after_its_lease_and_not_before(self, heart: Heart) -> None:
        silent = heart.worker("silent")
        heart.spawn("a")
        heart.wait(29.9)
        assert silent.held
        assert heart.holders() == {"a": "silent"}
        heart.wait(0.2)
        assert heart.holders() == {}
        assert heart.worker("other").held.keys() == {"a"}
        assert heart.ledger.progress[heart.key("a")].worker_losses == 1

    def test_a_worker_that_is_heard_keeps_what_it_holds(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a")
        for _ in range(20):
            heart.wait(10.0)
            hand.beat()
        assert heart.holders() == {"a": "worker"}

    @pytest.mark.parametrize("lease", [0.5, 2.0, 30.0])
    def test_a_lease_of_any_length_runs_out_though_nothing_else_happens(self, lease: float) -> None:
        """What could go wrong: each tick comes so late that the broker thinks it stood still itself."""
        heart = Heart(timing=Timing(lease=lease))
        heart.worker()
        heart.spawn("a")
        heart.wait(lease * 1.1)
        assert heart.holders() == {}

    def test_the_originals_worker_is_held_to_its_pings(self, heart: Heart) -> None:
        hand = heart.worker(protocol=WireProtocol.LEGACY)
        heart.spawn("a", of=ORIGINAL)
        assert hand.ask() == "a"
        heart.wait(89.0)
        assert heart.holders() == {"a": "worker"}
        heart.wait(2.0)
        assert heart.holders() == {}

    @pytest.mark.parametrize("seconds", [16.0, 90.0, 3_600.0, 366 * 86_400.0])
    def test_a_broker_that_stood_still_evicts_nobody(self, heart: Heart, seconds: float) -> None:
        hands = [heart.worker(f"w{number}") for number in range(5)]
        heart.spawn(*"abcde")
        heart.pass_time(seconds)
        heart.step()
        assert len(heart.holders()) == 5
        for _ in range(3):
            for hand in hands[1:]:
                hand.beat()
            heart.wait(9.9)
        assert "w0" in heart.holders().values()
        heart.wait(1.0)
        assert "w0" not in heart.holders().values(), "who is silent from then on is lost"
        assert len(heart.scheduler.dispatch.workers) == 4

    @pytest.mark.parametrize("seconds", [90.0, 3_600.0])
    def test_a_retry_that_fell_due_while_the_broker_stood_still_runs_when_it_goes_on(
        self, heart: Heart, seconds: float
    ) -> None:
        hand = heart.worker()
        heart.spawn("a", "b <- a", of=retrying(2, 5.0))
        hand.fail("a")
        heart.pass_time(seconds)
        assert heart.state("a") is State.BACKOFF
        heart.step()
        assert heart.finish(hand) == ["a", "b"]

    def test_a_wall_clock_that_jumps_moves_no_lease_and_no_retry(self, heart: Heart) -> None:
        hand = heart.worker(slots=2)
        heart.spawn("a", "b", where={"b": retrying(2, 5.0)})
        hand.fail("b")
        for jump in (3_600.0, -366 * 86_400.0):
            heart.wall += jump
            heart.step()
            assert heart.holders() == {"a": "worker"}
            assert heart.state("b") is State.BACKOFF
        heart.wait(5.0)
        assert heart.state("b") is State.CLAIMED


class TestLosses:
    def test_count_apart_from_runs_and_deaths(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a", of=retrying(2))
        hand.vanish(), hand.held.clear(), hand.connect()
        hand.child_dies(["a"])
        hand.fail("a")
        row = heart.ledger.progress[heart.key("a")]
        assert (row.failed_attempts, row.crashes, row.worker_losses) == (1, 1, 1)
        assert hand.complete("a")

    def test_end_in_the_failure_of_a_node_that_takes_every_worker_along(self) -> None:
        heart = Heart(limits=Limits(losses=3))
        heart.spawn("a", "b <- a")
        for number in range(3):
            assert heart.state("a") is State.QUEUED
            heart.worker(f"w{number}").vanish()
        assert heart.states("a", "b") == ["FAILED", "FAILED"]
        failure = heart.failure("b")
        assert (failure.type, failure.attempts) == ("dagorama.errors.WorkerLost", 3)
        assert "3 workers or connections were lost" in failure.message

    def test_a_worker_that_returns_with_its_attempt_never_lost_the_node(self) -> None:
        heart = Heart(limits=Limits(losses=3))
        hand = heart.worker()
        heart.spawn("a")
        for _ in range(10):
            hand.vanish()
            assert heart.ledger.progress[heart.key("a")].worker_losses == 1
            hand.connect()
            assert heart.ledger.progress[heart.key("a")].worker_losses == 0
        assert hand.complete("a")

    def test_a_worker_that_reconnects_before_its_loss_was_noticed_never_lost_the_node(self) -> None:
        heart = Heart(limits=Limits(losses=3))
        hand = heart.worker()
        heart.spawn("a")
        for _ in range(10):
            hand.connect()
        assert heart.ledger.progress[heart.key("a")].worker_losses == 0
        assert hand.complete("a")

    def test_a_worker_that_returns_after_its_lease_never_lost_the_node(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a")
        heart.wait(31.0)
        assert heart.ledger.progress[heart.key("a")].worker_losses == 1
        hand.connect()
        assert heart.ledger.progress[heart.key("a")].worker_losses == 0
        assert hand.complete("a")

    def test_a_loss_stands_if_the_node_was_granted_since(self, heart: Heart) -> None:
        first, second = heart.worker("first"), heart.worker("second")
        heart.spawn("a")
        holder, other = (first, second) if first.held else (second, first)
        holder.vanish()
        holder.connect()
        assert holder.refused
        assert heart.ledger.progress[heart.key("a")].worker_losses == 1
        assert other.complete("a")

    def test_a_connection_that_breaks_often_is_given_time_to_come_back_before_others_get_the_node(
        self, heart: Heart
    ) -> None:
        hands = [heart.worker("first"), heart.worker("second")]
        heart.spawn("a")
        for _ in range(9):
            (holder,) = (hand for hand in hands if hand.held)
            holder.vanish(), holder.held.clear(), holder.connect()
            assert heart.holders(), "another has it at once"
        (holder,) = (hand for hand in hands if hand.held)
        for _ in range(30):
            holder.vanish()
            assert heart.states("a") == ["BACKOFF"]
            heart.wait(1.9)
            holder.connect()
            for hand in hands:
                hand.beat()
            assert heart.holders() == {"a": holder.presence.name}
        assert heart.ledger.progress[heart.key("a")].worker_losses == 9
        holder.vanish()
        heart.wait(2.1)
        assert heart.holders()
        assert heart.finish(*(hand for hand in hands if hand is not holder)) == ["a"]

    def test_a_worker_that_breaks_often_may_come_back_to_the_next_broker(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a")
        for _ in range(9):
            hand.vanish(), hand.held.clear(), hand.connect()
        hand.vanish()
        heart.crash()
        assert heart.states("a") == ["BACKOFF"]
        hand.connect()
        assert heart.ledger.progress[heart.key("a")].worker_losses == 9
        assert hand.complete("a")

    def test_only_the_loss_of_the_attempt_that_returns_is_taken_back(self, heart: Heart) -> None:
        first = heart.worker("first")
        heart.spawn("a")
        first.vanish()
        second = heart.worker("second")
        second.vanish()
        assert heart.ledger.progress[heart.key("a")].worker_losses == 2
        first.connect()
        assert first.refused
        assert heart.ledger.progress[heart.key("a")].worker_losses == 2

    def test_a_worker_that_vanishes_gives_back_all_that_it_held(self, heart: Heart) -> None:
        heart.worker("gone", slots=3).vanish()
        hand = heart.worker("gone", slots=3)
        heart.spawn("a", "b", "c")
        hand.vanish()
        assert heart.states("a", "b", "c") == ["QUEUED"] * 3
        assert heart.in_memory() == {"nodes": 3, "instances": 1, "origins": 1, "active lanes": 1}

    def test_a_worker_that_is_gone_changes_nothing_by_going_again(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a")
        hand.vanish()
        before = heart.everything()
        heart.scheduler.disconnect(hand.worker, heart.now)
        heart.scheduler.leave(hand.worker)
        assert heart.everything() == before


class TestDeaths:
    def test_three_of_the_child_process_fail_the_node_with_the_cause(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a", "b <- a", of=retrying(10))
        for cause in ("killed by SIGSEGV", "exited with code 3"):
            hand.child_dies(["a"], cause=cause)
            assert heart.state("a") is State.CLAIMED
        hand.child_dies(["a"], cause="killed by SIGKILL, peak memory 900 MB")
        assert heart.states("a", "b") == ["FAILED", "FAILED"]
        failure = heart.failure("b")
        assert (failure.type, failure.attempts) == ("dagorama.errors.ProcessDied", 3)
        assert "ended 3 times while it ran" in failure.message
        assert "SIGKILL, peak memory 900 MB" in failure.message

    def test_do_not_count_for_what_only_waited(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("warm")
        hand.complete("warm", us=50)
        heart.spawn("culprit", "waits", "waits too")
        for _ in range(3):
            hand.child_dies(running=["culprit"], unstarted=["waits", "waits too"])
        assert heart.state("culprit") is State.FAILED
        assert heart.states("waits", "waits too") == ["CLAIMED", "CLAIMED"]
        assert not heart.ledger.progress.keys() & {heart.key("waits"), heart.key("waits too")}

    def test_are_the_workers_own_to_report(self, heart: Heart) -> None:
        hand, other = heart.worker("one"), heart.worker("other")
        heart.spawn("a", "b")
        hand.held["b"] = other.held["b"]
        hand.child_dies(running=["b"])
        hand.held["b"] = other.held["b"]
        hand.child_dies(unstarted=["b"])
        assert heart.holders() == {"a": "one", "b": "other"}
        assert not heart.ledger.progress

    def test_reported_twice_count_once(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a")
        attempt = hand.held["a"]
        heart.scheduler.died(hand.worker, [attempt, attempt], [attempt], "SIGSEGV", heart.now)
        heart.scheduler.died(hand.worker, [attempt], [], "SIGSEGV", heart.now)
        heart.step()
        assert not heart.ledger.progress, "what is named as unstarted was given back first"
        attempt = hand.held["a"]
        heart.scheduler.died(hand.worker, [attempt, attempt], [], "SIGSEGV", heart.now)
        heart.step()
        assert heart.ledger.progress[heart.key("a")].crashes == 1


class TestComingBack:
    def test_a_worker_that_reconnects_keeps_what_nobody_was_granted(self, heart: Heart) -> None:
        hand = heart.worker(slots=2)
        heart.spawn("a", "b")
        attempts = dict(hand.held)
        hand.vanish()
        hand.connect()
        assert hand.held == attempts
        assert hand.complete("a")
        assert hand.complete("b")

    def test_a_worker_that_was_cut_off_for_a_minute_goes_on(self, heart: Heart) -> None:
        """Nothing comes through, and neither end hears that the connection is gone."""
        hand = heart.worker("cut off", slots=2)
        heart.spawn("a", "b")
        attempts = dict(hand.held)
        heart.wait(31.0)
        other = heart.worker("other", slots=1)
        (taken,) = other.held
        for _ in range(3):
            heart.wait(9.9)
            other.beat()
        hand.connect()
        assert hand.refused == [attempts[taken]]
        assert hand.complete(*attempts.keys() - {taken})
        heart.spawn("new")
        assert "new" in hand.held

    def test_a_worker_that_connects_twice_keeps_what_it_holds(self, heart: Heart) -> None:
        """The broker has not noticed yet that the first connection is gone."""
        hand = heart.worker()
        heart.spawn("a")
        hand.connect()
        assert not hand.refused
        assert hand.complete("a")

    def test_a_node_that_was_granted_since_is_refused(self, heart: Heart) -> None:
        hand = heart.worker("first")
        heart.spawn("a")
        attempt = hand.held["a"]
        hand.vanish()
        second = heart.worker("second")
        hand.connect()
        assert hand.refused == [attempt]
        second.vanish()
        hand.held["a"] = attempt
        hand.connect()
        assert hand.refused == [attempt, attempt], "also when nobody holds it now"

    @pytest.mark.parametrize("end", ["failed", "was given back", "died"])
    def test_an_attempt_that_came_to_an_end_is_not_taken_up_again(self, heart: Heart, end: str) -> None:
        """Its worker did not hear that the end was recorded; to take it up would count it twice."""
        hand = heart.worker()
        heart.spawn("a", of=retrying(2))
        attempt = hand.held["a"]
        hand.drain()
        match end:
            case "failed":
                hand.fail("a")
            case "was given back":
                hand.give_back("a")
            case "died":
                hand.child_dies(["a"])
        assert heart.state("a") is State.QUEUED
        with heart.at_once():
            hand.vanish()
            hand.held["a"] = attempt
            hand.connect()
            hand.drain()
        assert hand.refused == [attempt]
        assert heart.state("a") is State.QUEUED

    @pytest.mark.parametrize("slot", [2, 1 << 40, -1])
    def test_a_slot_that_the_worker_does_not_have_is_refused(self, heart: Heart, slot: int) -> None:
        hand = heart.worker(slots=2)
        heart.spawn("a")
        hand.vanish()
        hand.slot_of["a"] = slot
        attempt = hand.held["a"]
        with heart.at_once():
            hand.connect()
            hand.drain()
        assert hand.refused == [attempt]
        assert heart.state("a") is State.QUEUED

    def test_what_never_was_is_refused_and_nothing_has_changed(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a", "b <- a", "c", of=GPU)
        current = heart.scheduler.dispatch.first_attempt + 7
        for key, attempt in [(99, 7), (heart.key("a"), current), (heart.key("b"), 7), (heart.key("c"), 0)]:
            before = heart.everything()
            heart.scheduler._take_up(hand.worker, key, attempt, 0, heart.now)
            assert heart.everything() == before
        heart.step()
        assert hand.refused == [7, current, 7, 0]

    def test_presenting_a_node_twice_is_presenting_it_once(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a")
        held = [(heart.key("a"), hand.held["a"], 0)] * 2
        with heart.at_once():
            hand.vanish()
            hand.worker = heart.scheduler.connect(hand.presence, held, heart.now)
            heart.hands[hand.worker] = hand
        assert not hand.refused
        assert hand.complete("a")

    def test_a_worker_of_the_other_world_takes_up_nothing(self, heart: Heart) -> None:
        theirs = heart.worker("theirs", protocol=WireProtocol.LEGACY)
        heart.spawn("a", of=ORIGINAL)
        theirs.ask()
        attempt = theirs.held["a"]
        theirs.vanish()
        ours = heart.worker("ours")
        heart.scheduler._take_up(ours.worker, heart.key("a"), attempt, 0, heart.now)
        heart.step()
        assert ours.refused == [attempt]

    def test_a_worker_is_on_record_while_it_is_connected(self, heart: Heart) -> None:
        hand = heart.worker()
        assert list(heart.ledger.workers.values()) == ["worker"]
        with heart.at_once():
            hand.vanish()
            hand.connect()
        assert list(heart.ledger.workers.values()) == ["worker"], "though it left and joined in one step"
        with heart.at_once():
            hand.connect()
            hand.vanish()
        assert not heart.ledger.workers, "though it joined and left in one step"
        heart.worker("theirs", protocol=WireProtocol.LEGACY)
        assert not heart.ledger.workers, "the original's workers do not come back"


class TestLeaving:
    def test_a_draining_worker_takes_nothing_more_and_finishes_what_it_holds(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn("a", "b")
        hand.drain()
        assert hand.complete("a")
        assert not hand.held
        assert heart.worker("other").held.keys() == {"b"}

    def test_drained_is_not_the_first_empty_moment(self, heart: Heart) -> None:
        busy = heart.worker("busy")
        heart.spawn("parent")
        patient = heart.worker("patient", leave_when_drained=True)
        assert not patient.held
        assert not patient.may_leave, "the other runs a node that may create more"
        busy.make("parent", "x", "y")
        busy.complete("parent")
        assert patient.held
        busy.complete(next(iter(busy.held)))
        assert not patient.may_leave
        patient.complete(next(iter(patient.held)))
        assert patient.may_leave

    def test_idle_is_the_first_empty_moment(self, heart: Heart) -> None:
        busy = heart.worker("busy")
        heart.spawn("a", "b <- a", "c")
        hand = heart.worker("hand", leave_when_idle=True)
        assert hand.held.keys() == {"c"}
        assert not hand.may_leave
        hand.complete("c")
        assert hand.may_leave
        assert busy.held.keys() == {"a"}

    def test_a_node_in_backoff_keeps_the_graph_from_being_drained(self, heart: Heart) -> None:
        heart.spawn("a", of=retrying(2, 5.0))
        hand = heart.worker(leave_when_drained=True)
        hand.fail("a")
        assert heart.state("a") is State.BACKOFF
        assert not hand.may_leave
        heart.wait(5.0)
        hand.complete("a")
        assert hand.may_leave

    def test_another_workers_node_in_backoff_may_lead_to_more(self, heart: Heart) -> None:
        able = heart.worker("able", tolerations={"GPU"})
        heart.spawn("gpu", "after <- gpu", where={"gpu": function("gpu", taint="GPU", retry=retrying(2, 5.0).retry)})
        hand = heart.worker("hand", leave_when_drained=True)
        able.fail("gpu")
        assert not hand.may_leave
        able.vanish()
        heart.step()
        assert hand.may_leave, "nobody is left who could run it"

    def test_what_waits_for_promises_is_drained_only_when_they_are_kept(self, heart: Heart) -> None:
        hand, other = heart.worker("hand"), heart.worker("other")
        heart.spawn("parent", "user <- parent")
        hand.make("parent", "child")
        patient = heart.worker("patient", leave_when_drained=True)
        hand.complete("parent", "child")
        assert heart.states("parent", "user") == ["RESOLVING", "WAITING"]
        assert not patient.may_leave
        assert heart.finish(hand, other, patient) == ["child", "user"]
        assert patient.may_leave

    def test_nodes_that_nobody_here_may_run_do_not_count(self, heart: Heart) -> None:
        heart.spawn("gpu", "after <- gpu", where={"gpu": GPU})
        assert heart.worker(leave_when_drained=True).may_leave

    def test_the_originals_work_leads_to_nothing_of_ours(self, heart: Heart) -> None:
        theirs = heart.worker("theirs", protocol=WireProtocol.LEGACY)
        heart.spawn("a", of=ORIGINAL)
        theirs.ask()
        assert heart.worker("ours", leave_when_drained=True).may_leave

    def test_whoever_may_leave_is_given_nothing_more(self, heart: Heart) -> None:
        hand = heart.worker(leave_when_drained=True)
        assert hand.may_leave
        heart.spawn("a")
        assert not hand.held
        assert heart.worker("other").held

    def test_what_a_worker_refuses_does_not_hold_it_up(self, heart: Heart) -> None:
        heart.spawn("a", "b")
        hand = heart.worker(leave_when_drained=True)
        hand.give_back("a", "it cannot import the function")
        assert hand.may_leave


def test_the_originals_workers_are_served_one_at_a_time(heart: Heart) -> None:
    hand = heart.worker(protocol=WireProtocol.LEGACY)
    heart.spawn("a", "b <- a", "c", of=ORIGINAL)
    assert not hand.held
    assert hand.ask() == "a"
    hand.complete("a")
    assert [hand.ask(), hand.ask(), hand.ask()] == ["b", "c", None]
    attempt = hand.held["b"]
    node = heart.scheduler.graph.find(heart.ids["b"])
    assert node is not None
    assert heart.scheduler.attempt_of(hand.worker, node) == attempt


def test_the_originals_retry_is_claimed_by_nobody_while_it_waits(heart: Heart) -> None:
    hand = heart.worker(protocol=WireProtocol.LEGACY)
    heart.spawn("a", of=function("old", protocol=WireProtocol.LEGACY, retry=retrying(2, 5.0).retry))
    hand.ask()
    hand.fail("a")
    node = heart.scheduler.graph.find(heart.ids["a"])
    assert node is not None
    with pytest.raises(FailedPrecondition):
        heart.scheduler.attempt_of(hand.worker, node)


def test_a_hand_is_told_only_what_is_its(heart: Heart) -> None:
    hands: list[Hand] = [heart.worker(f"w{number}") for number in range(3)]
    heart.spawn("a", "b", "c")
    assert [list(hand.held) for hand in hands] == [["a"], ["b"], ["c"]]


class TestASlotThatIsGoneForGood:
    def test_is_granted_nothing_more(self, heart: Heart) -> None:
        hand = heart.worker(slots=2)
        hand.close_slot(0)
        heart.spawn("a", "b")
        assert hand.slot_of == {"a": 1}
        hand.complete("a")
        assert hand.slot_of == {"a": 1, "b": 1}

    def test_gives_back_what_it_held_at_once_and_uncounted(self, heart: Heart) -> None:
        hand, other = heart.worker(slots=2), heart.worker("other", include_queues={"work"})
        heart.spawn("a", "b", "c")
        attempt = hand.held["a"]
        hand.close_slot(0)
        assert hand.held.keys() == {"b"}
        other.complete("c")
        assert heart.holders() == {"a": "other", "b": "worker"}
        assert not hand.complete("a", attempt=attempt)
        assert heart.key("a") not in heart.ledger.progress

    def test_stays_so_when_the_worker_refuses_a_function(self, heart: Heart) -> None:
        hand = heart.worker(slots=2)
        hand.close_slot(1)
        heart.spawn("a", of=function("other"))
        hand.give_back("a", "it cannot import the function")
        heart.spawn("b", "c")
        assert hand.held.keys() == {"b"}

    def test_is_there_again_when_the_worker_connects_anew(self, heart: Heart) -> None:
        hand = heart.worker(slots=2)
        hand.close_slot(1)
        hand.connect()
        heart.spawn("a", "b")
        assert hand.held.keys() == {"a", "b"}

    def test_has_to_be_one_of_the_workers(self, heart: Heart) -> None:
        hand = heart.worker(slots=2)
        with pytest.raises(InvalidArgument, match="2 slots"):
            heart.scheduler.close_slot(hand.worker, 2, heart.now)


class TestOverruns:
    """Case 21: a worker that goes on beating but does not stop a run at its timeout is not trusted for ever."""

    TIMED = function("timed", timeout=5.0)

    def beat_for(self, heart: Heart, hand: Hand, seconds: int) -> None:
        for _ in range(seconds):
            heart.wait(1.0)
            hand.beat()

    def test_the_node_goes_to_another_a_lease_after_its_timeout(self, heart: Heart) -> None:
        hung = heart.worker("hung")
        heart.spawn("a", of=self.TIMED)
        attempt = hung.held["a"]
        self.beat_for(heart, hung, 34)
        assert heart.holders() == {"a": "hung"}
        self.beat_for(heart, hung, 3)
        assert hung.refused == [attempt]
        other = heart.worker("other")
        assert other.complete("a")
        assert not hung.complete("a", attempt=attempt)

    def test_its_slot_is_given_nothing_more(self, heart: Heart) -> None:
        hung = heart.worker("hung")
        heart.spawn("a", of=self.TIMED)
        self.beat_for(heart, hung, 40)
        heart.spawn("b")
        assert heart.states("a", "b") == ["QUEUED", "QUEUED"]

    def test_a_node_that_waits_behind_a_long_run_is_not_taken_for_one_that_hangs(self, heart: Heart) -> None:
        hand = heart.worker("busy")
        heart.spawn("warm", "warm too", where={"warm": self.TIMED})
        hand.complete("warm", us=100)
        hand.complete("warm too", us=100)
        heart.spawn("long", "timed", where={"timed": self.TIMED})
        assert list(hand.held) == ["long", "timed"]
        self.beat_for(heart, hand, 120)
        assert list(hand.held) == ["long", "timed"]
        hand.complete("long", us=100)
        self.beat_for(heart, hand, 34)
        assert list(hand.held) == ["timed"], "its time began when the long run had ended"
        self.beat_for(heart, hand, 60)
        assert not hand.held

    def test_runs_that_end_in_time_are_not_remembered_until_their_time_would_have_come(self, heart: Heart) -> None:
        hand = heart.worker()
        heart.spawn(*[f"n{number}" for number in range(500)], of=self.TIMED)
        heart.finish(hand)
        assert len(heart.scheduler.dispatch.overruns) <= 2 * 2 + 64

    def test_a_standstill_of_the_broker_is_no_fault_of_the_workers(self, heart: Heart) -> None:
        hand = heart.worker("fine")
        heart.spawn("a", of=self.TIMED)
        heart.pass_time(3_600.0)
        heart.step()
        assert hand.complete("a")
