"""Wide and deep graphs are normal work: linear in what is done, and nothing recurses."""

import sys
from collections.abc import Callable, Sequence
from types import FrameType

import pytest

from dagorama_broker.model.domain import Failure, State
from dagorama_broker.model.rows import OutcomeRow
from dagorama_broker.scheduler import NewNodes, Scheduler, Worker, WorkerInfo
from tests.support.driver import WORK, SchedulerDriver, function
from tests.support.operations import operations

MANY = 100_000
INSTANCE, ORIGIN = b"i" * 16, b"o" * 12
BOOM = Failure("", "ValueError", "boom", "", b"", 0)


class Bare:
    """A scheduler and one worker, without a ledger."""

    def __init__(self, sources: Sequence[Sequence[int]]) -> None:
        self.scheduler = Scheduler(1)
        self.worker: Worker = self.scheduler.connect(WorkerInfo(b"w" * 16, "w"), (), 0.0)
        count = len(sources)
        run = NewNodes(
            INSTANCE, ORIGIN, 0, [WORK], [0] * count, [b"a"] * count, list(sources), creates=("work:Work", b"")
        )
        self.scheduler.submit([run], {})
        self.outcomes: list[OutcomeRow] = []
        self.runs = 0

    def run(self, most: int = 1 << 40) -> None:
        """Complete what is granted until nothing is, or `most` nodes have run."""
        scheduler, worker = self.scheduler, self.worker
        while self.runs < most:
            again = scheduler.tick(0.0)
            changes, effects = scheduler.drain()
            self.outcomes += changes.outcomes
            if not effects.granted and again != 0.0:
                return
            for _, node, attempt in effects.granted:
                scheduler.complete(worker, node.key, attempt, b"v", 10, (), (), {}, (), 0.0)
                self.runs += 1


def fan_in(count: int) -> list[Sequence[int]]:
    return [*[()] * count, range(count)]


def chain(count: int) -> list[Sequence[int]]:
    return [(), *[(before,) for before in range(count - 1)]]


@pytest.mark.slow
def test_a_fan_in_of_100_000() -> None:
    bare = Bare(fan_in(MANY))
    bare.run()
    assert bare.runs == len(bare.outcomes) == MANY + 1
    assert bare.outcomes[-1].key == MANY + 1
    assert not bare.scheduler.graph.nodes


def test_a_chain_of_100_000() -> None:
    bare = Bare(chain(MANY))
    bare.run()
    assert [outcome.key for outcome in bare.outcomes] == list(range(1, MANY + 1))
    assert not bare.scheduler.graph.nodes


def test_a_chain_of_100_000_that_fails_at_its_head() -> None:
    bare = Bare(chain(MANY))
    bare.scheduler.tick(0.0)
    (granted,) = bare.scheduler.drain()[1].granted
    bare.scheduler.fail(bare.worker, granted.node.key, granted.attempt, BOOM, 0.0, 0.0)
    bare.run()
    assert len(bare.outcomes) == MANY
    assert {outcome.root_cause for outcome in bare.outcomes} == {1}
    assert not bare.scheduler.graph.nodes


def test_a_promise_returned_through_a_thousand_nodes(driver: SchedulerDriver) -> None:
    hand = driver.worker()
    driver.spawn("p0", "user <- p0")
    for depth in range(1_000):
        hand.make(f"p{depth}", f"p{depth + 1}")
        hand.complete(f"p{depth}", f"p{depth + 1}")
    assert driver.scheduler.graph.counts[State.RESOLVING] == 1_000
    hand.complete("p1000")
    assert len(driver.changes.resolved) == 1_000
    assert hand.held.keys() == {"user"}
    hand.complete("user")
    assert len(driver.effects.unread) == 1_001
    assert driver.in_memory() == {}


@pytest.mark.parametrize("shape", [fan_in, chain], ids=lambda shape: shape.__name__)
class TestTwiceTheNodesAreTwiceTheWork:
    def ratio(self, cost: Callable[[int], int]) -> float:
        return cost(128) / cost(64)

    def test_to_make(self, shape: Callable[[int], list[Sequence[int]]]) -> None:
        assert self.ratio(lambda count: operations(lambda: Bare(shape(count)))) < 2.1

    def test_to_run(self, shape: Callable[[int], list[Sequence[int]]]) -> None:
        assert self.ratio(lambda count: operations(Bare(shape(count)).run)) < 2.1


def test_twice_the_returned_promises_are_twice_the_work() -> None:
    def cost(count: int) -> int:
        driver = SchedulerDriver()
        hand = driver.worker()
        driver.spawn("p0", "user <- p0")
        for depth in range(count):
            hand.make(f"p{depth}", f"p{depth + 1}")
            hand.complete(f"p{depth}", f"p{depth + 1}")
        return operations(lambda: driver.finish(hand))

    assert cost(128) / cost(64) < 2.1


def test_a_hop_of_a_long_chain_costs_what_one_of_a_short_chain_costs() -> None:
    def cost(count: int) -> int:
        bare = Bare(chain(count))
        bare.run(10)
        return operations(lambda: bare.run(20))

    assert cost(20_000) == cost(50)


def test_a_result_that_names_many_children_is_linear_in_them() -> None:
    """They were staged in many messages."""

    def cost(pieces: int) -> int:
        driver = SchedulerDriver()
        hand = driver.worker()
        driver.spawn("parent")
        names = [f"c{number}" for number in range(pieces * 4)]
        for start in range(0, len(names), 4):
            hand.make("parent", *names[start : start + 4])
        return operations(lambda: hand.complete("parent", *names))

    assert cost(64) / cost(32) < 2.15


def test_a_restart_is_linear_in_what_has_not_ended() -> None:
    def cost(count: int) -> int:
        driver = SchedulerDriver()
        driver.spawn("n0", *(f"n{number} <- n{number - 1}" for number in range(1, count)))
        return operations(driver.crash)

    assert cost(128) / cost(64) < 2.1


def calls(action: Callable[[], None]) -> int:
    """How many functions of the broker it calls."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call" and "dagorama_broker" in frame.f_code.co_filename

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def of_many_keys(many: int) -> NewNodes:
    limited, keys = [function("limited", max_concurrency=1)], [f"k{number}" for number in range(many)]
    return NewNodes(INSTANCE, ORIGIN, 0, limited, [0] * many, [b"a"] * many, keys=keys, key=range(1, many + 1))


def of_many_functions(many: int) -> NewNodes:
    functions = [function(f"f{number}") for number in range(many)]
    return NewNodes(INSTANCE, ORIGIN, 0, functions, range(many), [b"a"] * many)


@pytest.mark.parametrize("block_of", [of_many_keys, of_many_functions])
def test_a_step_costs_what_has_changed_however_many_keys_or_functions_are_queued(
    block_of: Callable[[int], NewNodes],
) -> None:
    def a_step(many: int) -> int:
        scheduler = Scheduler(1)
        worker = scheduler.connect(WorkerInfo(b"w" * 16, "w"), (), 0.0)
        run = block_of(many)
        run.creates = ("work:Work", b"")
        scheduler.submit([run], {})
        scheduler.tick(0.0)
        (granted,) = scheduler.drain()[1].granted

        def step() -> None:
            scheduler.complete(worker, granted.node.key, granted.attempt, b"v", 10**6, (), (), {}, (), 0.0)
            scheduler.tick(0.0)
            assert len(scheduler.drain()[1].granted) == 1

        return calls(step)

    assert a_step(20_000) < 2 * a_step(200)


def test_ready_nodes_of_many_keys_are_granted_in_their_order(driver: SchedulerDriver) -> None:
    limited = function("limited", max_concurrency=1)
    driver.spawn("a @k", "b @k", "c @l", "d @m", "e @l", of=limited)
    hand = driver.worker(slots=1)
    assert driver.finish(hand) == ["a", "b", "c", "d", "e"]
