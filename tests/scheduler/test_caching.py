"""Cached values: hits, single flight, failures, ends of entries, restarts, and a leader that waits for its follower."""

from itertools import chain

import pytest

from dagorama_broker.model.delays import NodeDelay
from dagorama_broker.model.domain import State, unpack_keys
from dagorama_broker.model.rows import RemovedRow
from dagorama_broker.scheduler import AnnouncedKey, ReasonCode, Scheduler, caching
from dagorama_broker.scheduler.hits import FOUND_HEAD
from tests.support.driver import SIGNING_KEY, WORK, SchedulerDriver, function

K, OTHER = b"k" * 32, b"o" * 32
CACHED = function("cached", cached=True)
HOUR = function("hour", cached=True, cache_ttl=3_600.0)


def found_for(driver: SchedulerDriver, name: str) -> object:
    """Return the name of the node whose value a granted node gets; else whether it is to run."""
    found = driver.scheduler.found_for(driver.scheduler.graph.nodes[driver.key(name)])
    return found if isinstance(found, bool) else driver.names[found.node_id]


def computed(driver: SchedulerDriver, name: str = "a", of: object = CACHED) -> None:
    """A node computes the value of K."""
    hand = driver.worker()
    driver.spawn(name, of=of)  # type: ignore[arg-type]  # a Function
    hand.look_up(name, K)
    assert hand.compute(name, K)
    hand.vanish()


class TestHits:
    def test_a_node_whose_key_is_unknown_is_neither_run_nor_given_a_value(self, driver: SchedulerDriver) -> None:
        driver.worker()
        driver.spawn("a", of=CACHED)
        assert found_for(driver, "a") is False

    def test_the_first_node_with_a_key_runs(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=CACHED)
        assert hand.look_up("a", K)
        assert (driver.state("a"), found_for(driver, "a")) == (State.CLAIMED, True)

    def test_a_later_one_gets_its_value_and_names_it(self, driver: SchedulerDriver) -> None:
        computed(driver)
        hand = driver.worker()
        driver.spawn("b", of=CACHED)
        hand.look_up("b", K)
        assert found_for(driver, "b") == "a"
        hand.complete("b", "a", us=0)
        assert driver.outcome("b").state == State.COMPLETED
        assert {(link.instance, link.named) for link in driver.ledger.links} == {(2, 1)}, "which keeps it"
        assert (driver.scheduler.cache_hits, driver.scheduler.cache_misses) == (1, 1)

    def test_another_key_runs(self, driver: SchedulerDriver) -> None:
        computed(driver)
        hand = driver.worker()
        driver.spawn("b", of=CACHED)
        hand.look_up("b", OTHER)
        assert found_for(driver, "b") is True

    def test_a_report_of_another_attempt_changes_nothing(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=CACHED)
        assert not hand.look_up("a", K, attempt=hand.held["a"] + 1)
        assert found_for(driver, "a") is False

    def test_an_outcome_whose_node_was_lost_is_not_cached(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=CACHED)
        hand.look_up("a", K)
        hand.vanish()
        assert not hand.compute("a", K)
        assert driver.scheduler.cached_values == 0


class TestAnnouncedKeys:
    """The caller of a node has computed its key: a cached value needs no worker, and no worker is asked for the key."""

    def announced_key(self, driver: SchedulerDriver, name: str) -> bytes:
        return driver.scheduler.announced_key(driver.scheduler.graph.nodes[driver.key(name)])

    def test_a_node_completes_without_a_worker_with_what_its_caller_and_the_worker_have_signed(
        self, driver: SchedulerDriver
    ) -> None:
        computed(driver)
        instance = driver.spawn("b", of=CACHED, announced={"b": K})
        outcome, (first,) = driver.outcome("b"), driver.ledger.cached.values()
        assert (outcome.state, outcome.worker, driver.scheduler.cache_hits) == (State.COMPLETED, 0, 1)
        assert unpack_keys(outcome.refs) == (driver.key("a"),)
        signed = SIGNING_KEY + bytes(32)
        assert outcome.value == FOUND_HEAD + K + instance + signed + first.instance_id + first.node_id + first.proof
        assert {(link.instance, link.named) for link in driver.ledger.links} == {(2, 1)}, "which keeps it"

    def test_nodes_that_wait_for_it_are_granted_with_its_value(self, driver: SchedulerDriver) -> None:
        computed(driver)
        hand = driver.worker()
        driver.spawn("b", "c <- b", where={"b": CACHED}, announced={"b": K})
        assert list(hand.held) == ["c"]
        hand.complete("c")
        assert driver.outcome("c").state == State.COMPLETED

    def test_an_instance_whose_nodes_all_have_values_ends(self, driver: SchedulerDriver) -> None:
        computed(driver)
        driver.spawn("b", "c", of=CACHED, announced={"b": K, "c": K})
        assert driver.scheduler.graph.instances == {}
        assert [driver.outcome(name).state for name in "bc"] == [State.COMPLETED] * 2

    def test_a_value_under_another_signing_key_is_left_to_a_worker(self, driver: SchedulerDriver) -> None:
        computed(driver)
        hand = driver.worker()
        driver.spawn("b", of=CACHED, announced={"b": K}, signed_by=b"key id 2")
        assert (found_for(driver, "b"), self.announced_key(driver, "b")) == ("a", K)
        hand.complete("b", "a", us=0)
        assert driver.scheduler.cache_hits == 1

    def test_a_value_that_names_other_nodes_is_left_to_a_worker(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", "c", where={"a": CACHED}, of=WORK)
        hand.look_up("a", K)
        hand.compute("a", K, "c")
        hand.complete("c")
        driver.spawn("b", of=CACHED, announced={"b": K})
        assert found_for(driver, "b") == "a"

    def test_an_expired_value_is_computed_again(self, driver: SchedulerDriver) -> None:
        computed(driver, of=HOUR)
        driver.worker()
        driver.wait(3_601.0)
        driver.spawn("b", of=HOUR, announced={"b": K})
        assert found_for(driver, "b") is True

    def test_nothing_completes_while_the_queue_is_paused(self, driver: SchedulerDriver) -> None:
        computed(driver)
        driver.scheduler.pause(CACHED.queue, "")
        driver.spawn("b", of=CACHED, announced={"b": K})
        assert driver.state("b") == State.QUEUED
        hand = driver.worker()
        driver.scheduler.resume(CACHED.queue)
        driver.step()
        assert (list(hand.held), found_for(driver, "b")) == (["b"], "a")

    def test_a_node_runs_when_it_is_first_granted_and_others_wait_for_it(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", of=CACHED, announced={"a": K})
        instance = driver.spawn("b", of=CACHED, announced={"b": K})
        assert (found_for(driver, "a"), driver.state("b")) == (True, State.WAITING)
        driver.add(instance, "c <- b")
        driver.spawn("d", of=CACHED, announced={"d": K})
        hand.compute("a", K)
        assert [driver.outcome(name).state for name in "bd"] == [State.COMPLETED] * 2
        assert (list(hand.held), driver.scheduler.cache_hits) == (["c"], 2)

    def test_the_key_of_a_worker_replaces_another_one(self, driver: SchedulerDriver) -> None:
        computed(driver)
        hand = driver.worker()
        driver.spawn("b", of=CACHED, announced={"b": OTHER})
        assert (found_for(driver, "b"), self.announced_key(driver, "b")) == (True, OTHER)
        hand.look_up("b", K)
        assert (found_for(driver, "b"), self.announced_key(driver, "b")) == ("a", b"")

    def test_if_the_first_of_two_has_announced_a_wrong_one_the_second_runs(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", of=CACHED, announced={"a": K})
        driver.spawn("b", of=CACHED, announced={"b": K})
        hand.look_up("a", OTHER)
        hand.compute("a", OTHER)
        assert (driver.state("b"), found_for(driver, "b")) == (State.CLAIMED, False)
        hand.look_up("b", K)
        assert found_for(driver, "b") is True

    def test_a_node_that_was_moved_to_other_code_does_not_get_the_value_of_its_old_code(
        self, driver: SchedulerDriver
    ) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", of=CACHED, announced={"a": K})
        driver.spawn("b", of=CACHED, announced={"b": K})
        assert driver.rebind("cached", "new", "h") == (1, "new")
        hand.compute("a", K)
        assert (list(hand.held), self.announced_key(driver, "b")) == (["b"], K), "its worker finds out"

    def test_nor_if_it_was_moved_before_it_started(self, driver: SchedulerDriver) -> None:
        computed(driver)
        block = driver.run(driver.fresh(16), driver.fresh(12), ["b"], CACHED, {})
        block.creates = ("work:Work", block.origin + bytes(4))
        block.cache_keys = {0: AnnouncedKey(K, SIGNING_KEY + bytes(32))}
        draft = driver.scheduler.draft([block], {})
        for _ in chain(draft.find_out(), draft.enter()):
            driver.step()
        draft.carry_out(0)
        assert driver.rebind("cached", "new", "h") == (1, "new")
        assert driver.state("b") == State.QUEUED

    def test_no_node_waits_for_the_value_of_one_that_starts_later(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", of=CACHED, announced={"a": K}, delays={"a": NodeDelay(60.0, 0.0)})
        driver.spawn("b", of=CACHED, announced={"b": K})
        assert (driver.state("a"), found_for(driver, "b")) == (State.BACKOFF, True)
        hand.compute("b", K)
        driver.wait(61.0)
        assert (found_for(driver, "a"), self.announced_key(driver, "a")) == (False, b"")

    def test_a_function_without_a_cache_runs(self, driver: SchedulerDriver) -> None:
        computed(driver)
        hand = driver.worker()
        driver.spawn("b", announced={"b": K})
        hand.complete("b")
        assert driver.scheduler.cache_hits == 0

    def test_a_large_call_announces_keys_too(self, driver: SchedulerDriver) -> None:
        computed(driver)
        driver.worker()
        block = driver.run(driver.fresh(16), driver.fresh(12), ["b"], CACHED, {})
        block.creates = ("work:Work", block.origin + bytes(4))
        block.cache_keys = {0: AnnouncedKey(K, SIGNING_KEY + bytes(32))}
        for _ in driver.submit_in_slices(block):
            pass
        assert driver.outcome("b").state == State.COMPLETED

    def test_a_restart_forgets_them(self, driver: SchedulerDriver) -> None:
        computed(driver)
        driver.spawn("b", of=CACHED, announced={"b": K}, signed_by=b"key id 2")
        driver.crash()
        driver.worker()
        assert found_for(driver, "b") is False


class TestSingleFlight:
    def two(self, driver: SchedulerDriver) -> tuple:  # type: ignore[type-arg]
        hand = driver.worker(slots=2)
        driver.spawn("a", of=CACHED)
        driver.spawn("b", of=CACHED)
        hand.look_up("a", K)
        hand.look_up("b", K)
        return hand, driver

    def test_the_second_one_waits_and_holds_no_slot(self, driver: SchedulerDriver) -> None:
        hand, _ = self.two(driver)
        assert (driver.state("a"), driver.state("b")) == (State.CLAIMED, State.WAITING)
        assert list(hand.held) == ["a"]

    def test_it_is_explained(self, driver: SchedulerDriver) -> None:
        self.two(driver)
        (reason,) = driver.scheduler.reasons_of(driver.scheduler.graph.nodes[driver.key("b")])
        assert reason.code is ReasonCode.COMPUTED_ELSEWHERE
        assert [driver.name(node) for node in reason.nodes] == ["a"]
        causes = driver.scheduler.causes_of([driver.scheduler.graph.nodes[driver.key("b")]])
        assert [driver.name(cause.node) for cause in causes.largest] == ["a"], "it ultimately waits for that"

    def test_it_gets_the_value(self, driver: SchedulerDriver) -> None:
        hand, _ = self.two(driver)
        hand.compute("a", K)
        assert (list(hand.held), found_for(driver, "b")) == (["b"], "a")

    def test_if_the_first_one_fails_the_second_runs(self, driver: SchedulerDriver) -> None:
        hand, _ = self.two(driver)
        hand.fail("a")
        assert driver.outcome("a").state == State.FAILED
        assert (driver.state("b"), found_for(driver, "b")) == (State.CLAIMED, False)
        hand.look_up("b", K)
        assert found_for(driver, "b") is True

    def test_if_the_first_one_is_cancelled_the_second_runs(self, driver: SchedulerDriver) -> None:
        hand, _ = self.two(driver)
        driver.cancel("a")
        hand.look_up("b", K)
        assert found_for(driver, "b") is True

    def test_of_many_only_one_runs_after_a_failure(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=4)
        driver.spawn("a", "b", "c", "d", of=CACHED)
        for name in "abcd":
            hand.look_up(name, K)
        hand.fail("a")
        for name in list(hand.held):
            hand.look_up(name, K)
        assert list(hand.held) == ["b"]
        hand.compute("b", K)
        assert sorted(hand.held) == ["c", "d"]
        assert {found_for(driver, name) for name in "cd"} == {"b"}

    def test_a_worker_that_is_lost_leaves_it_waiting_for_the_next_attempt(self, driver: SchedulerDriver) -> None:
        hand, _ = self.two(driver)
        hand.vanish()
        assert (driver.state("a"), driver.state("b")) == (State.QUEUED, State.WAITING)
        other = driver.worker()
        assert found_for(driver, "a") is True
        other.compute("a", K)
        assert found_for(driver, "b") == "a"

    def test_the_second_one_can_be_cancelled(self, driver: SchedulerDriver) -> None:
        hand, _ = self.two(driver)
        driver.cancel("b")
        hand.compute("a", K)
        assert driver.outcome("b").state == State.CANCELLED

    def test_a_delay_is_not_waited_for_again(self, driver: SchedulerDriver) -> None:
        delayed = function("delayed", cached=True, delay=5.0)
        hand = driver.worker(slots=2)
        driver.spawn("a", "b", of=delayed)
        driver.wait(5.0)
        hand.look_up("a", K)
        hand.look_up("b", K)
        hand.compute("a", K)
        assert list(hand.held) == ["b"]

    def test_it_waits_until_the_promises_of_the_first_one_are_kept(self, driver: SchedulerDriver) -> None:
        hand, _ = self.two(driver)
        hand.make("a", "child")
        hand.compute("a", K, "child")
        assert (driver.state("a"), driver.state("b")) == (State.RESOLVING, State.WAITING)
        hand.complete("child")
        assert found_for(driver, "b") == "a"

    def test_a_node_that_the_first_one_waits_for_does_not_wait_for_it(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", of=CACHED)
        hand.look_up("a", K)
        hand.make("a", "middle")
        hand.compute("a", K, "middle")
        hand.make("middle", "child", of=CACHED)
        hand.complete("middle", "child")
        hand.look_up("child", K)
        assert found_for(driver, "child") is True, "else none of them would ever end"
        hand.compute("child", K)
        assert driver.ledger.has_ended(driver.key("a"))

    @pytest.mark.parametrize("returned", ["child", "between"])
    def test_nor_does_one_that_waits_for_it_before_the_first_one_returns_its_promise(
        self, driver: SchedulerDriver, returned: str
    ) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", of=CACHED)
        hand.look_up("a", K)
        driver.spawn("child", of=CACHED, announced={"child": K})
        driver.spawn("other", of=CACHED, announced={"other": K})
        assert driver.state("child") == State.WAITING, "a may return what does not need it"
        if returned == "between":
            driver.spawn("between")
            hand.complete("between", "child")
        hand.compute("a", K, returned)
        assert (driver.state("other"), found_for(driver, "child")) == (State.WAITING, True)
        hand.compute("child", K)
        assert driver.ledger.has_ended(driver.key("a"))
        assert found_for(driver, "other") == "a"

    def test_a_slot_with_a_node_that_runs_long_gets_no_more(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=1)
        driver.spawn("warm", of=CACHED)
        hand.look_up("warm", OTHER)
        hand.compute("warm", OTHER, us=1_000_000)
        driver.spawn(*(f"n{number}" for number in range(40)), of=CACHED)
        assert len(hand.held) == 40, "a look-up costs little"
        hand.look_up("n0", K)
        for name in [name for name in hand.held if name != "n0"]:
            hand.give_back(name)
        assert found_for(driver, "n0") is True
        assert list(hand.held) == ["n0"], "and a run costs what it is known to"


class TestEnds:
    def test_a_value_is_used_until_its_time_to_live_is_over(self, driver: SchedulerDriver) -> None:
        computed(driver, of=HOUR)
        driver.wait(3_599.0)
        hand = driver.worker(slots=2)
        driver.spawn("b", of=HOUR)
        hand.look_up("b", K)
        assert found_for(driver, "b") == "a"
        driver.wait(1.0)
        assert found_for(driver, "b") is False
        hand.look_up("b", K)
        assert found_for(driver, "b") is True

    def test_a_new_value_replaces_the_old_one(self, driver: SchedulerDriver) -> None:
        computed(driver)
        hand = driver.worker()
        driver.spawn("b", of=CACHED)
        hand.compute("b", K)  # it was refreshed
        driver.spawn("c", of=CACHED)
        hand.look_up("c", K)
        assert found_for(driver, "c") == "b"
        assert driver.scheduler.cached_values == len(driver.ledger.cached) == 1

    def test_it_ends_with_the_instance_of_its_node(self, driver: SchedulerDriver) -> None:
        computed(driver)
        row = driver.ledger.instances[1]
        driver.scheduler.remove_instances([RemovedRow(1, row.id, driver.wall, False, 0.0)])
        driver.step()
        assert (driver.scheduler.cached_values, driver.ledger.cached) == (0, {})

    def test_a_value_that_is_gone_when_it_is_named_is_a_miss(self, driver: SchedulerDriver) -> None:
        computed(driver)
        hand = driver.worker()
        driver.spawn("b", of=CACHED)
        hand.look_up("b", K)
        driver.scheduler.found_gone(hand.worker, driver.key("b"), hand.held.pop("b"))
        driver.step()
        assert found_for(driver, "b") is True
        assert driver.scheduler.cached_values == 0

    def test_it_is_cleared_by_the_name_of_the_function(self, driver: SchedulerDriver) -> None:
        computed(driver)
        assert driver.scheduler.clear_cache("other") == 0
        assert driver.scheduler.clear_cache("cached") == 1
        driver.step()
        assert (driver.scheduler.cached_counts(), driver.ledger.cached) == ({}, {})

    def test_the_oldest_goes_if_there_are_too_many(
        self, driver: SchedulerDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(caching, "MOST_CACHED", 2)
        hand = driver.worker()
        for number in range(3):
            driver.spawn(f"n{number}", of=CACHED)
            hand.compute(f"n{number}", bytes([number]) * 32)
        kept = [bytes([1]) * 32, bytes([2]) * 32]
        assert list(driver.ledger.cached) == list(driver.scheduler.graph.caching.entries) == kept


class TestRestart:
    def test_values_are_kept(self, driver: SchedulerDriver) -> None:
        computed(driver)
        driver.crash()
        hand = driver.worker()
        driver.spawn("b", of=CACHED)
        hand.look_up("b", K)
        assert found_for(driver, "b") == "a"

    def test_a_value_that_was_not_committed_is_not_found(self, driver: SchedulerDriver) -> None:
        hand = driver.worker()
        driver.spawn("a", of=CACHED)
        hand.look_up("a", K)
        with driver.at_once():
            hand.compute("a", K)
            driver.step(commit=False)
            driver.crash()
        assert driver.scheduler.cached_values == 0

    def test_a_node_that_waited_is_looked_up_again(self, driver: SchedulerDriver) -> None:
        hand = driver.worker(slots=2)
        driver.spawn("a", "b", of=CACHED)
        hand.look_up("a", K)
        hand.look_up("b", K)
        driver.crash()
        again = driver.worker(slots=2)
        driver.wait(driver.scheduler.timing.reconnect_wait)
        assert sorted(again.held) == ["a", "b"]
        assert found_for(driver, "a") is found_for(driver, "b") is False


def test_functions_without_a_cache_know_nothing_of_it(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("a")
    assert hand.look_up("a", K), "it is given back"
    hand.compute("a", K)
    graph = driver.scheduler.graph
    assert isinstance(driver.scheduler, Scheduler)
    assert (graph.caching.keys, graph.caching.computed, driver.scheduler.cached_values) == ({}, {}, 0)
