"""Requests of clients that are accepted, and ones that are refused, which change nothing."""

from collections.abc import Sequence

import pytest

from dagorama_broker.errors import BrokerRefusal, Conflict, InvalidArgument, NotFound, ResourceExhausted
from dagorama_broker.model.domain import State
from dagorama_broker.scheduler import Limits, NewNodes
from tests.support.driver import WORK, SchedulerDriver

HERE, ELSEWHERE = b"instance-of-here", b"instance-of-else"
ORIGIN, FOREIGN = b"origin------", b"foreign-----"
DEFINITION = ("work:Work", b"")


def run(
    driver: SchedulerDriver,
    sources: Sequence[Sequence[int]],
    origin: bytes = ORIGIN,
    first: int = 0,
    instance: bytes = HERE,
    foreign: Sequence[bytes] = (),
    creates: tuple[str, bytes] | None = None,
) -> NewNodes:
    size = len(sources)
    return NewNodes(instance, origin, first, [WORK], [0] * size, [b"a"] * size, list(sources), foreign, creates)


def node_id(counter: int, origin: bytes = ORIGIN) -> bytes:
    return origin + counter.to_bytes(4, "big")


@pytest.fixture
def there(driver: SchedulerDriver) -> SchedulerDriver:
    """Two instances: counters 10 to 12 of one origin are taken here, one node elsewhere."""
    driver.submit(run(driver, [[], [10], []], first=10, creates=DEFINITION))
    driver.submit(run(driver, [[]], FOREIGN, instance=ELSEWHERE, creates=DEFINITION))
    return driver


@pytest.mark.parametrize(
    ("asked", "error", "sentence"),
    [
        ({"sources": [[]], "instance": b"x" * 16}, NotFound, "instance .* is not known"),
        ({"sources": [[5]], "first": 20}, NotFound, "source .* is not known"),
        ({"sources": [[-1]], "first": 20, "foreign": [b"x" * 16]}, NotFound, "source 7878.* is not known"),
        ({"sources": [[20]], "first": 20}, InvalidArgument, "names itself"),
        ({"sources": [[21], []], "first": 20}, InvalidArgument, "made after it"),
        ({"sources": [[-1]], "first": 20, "foreign": [node_id(20)]}, NotFound, "not known"),
        ({"sources": [[10, 10]], "first": 20}, InvalidArgument, "same source twice"),
        ({"sources": [[10, -1]], "first": 20, "foreign": [node_id(10)]}, InvalidArgument, "same source twice"),
        ({"sources": [[-1]], "first": 20, "foreign": [node_id(0, FOREIGN)]}, InvalidArgument, "another instance"),
        ({"sources": [[]], "first": 10}, Conflict, "exists already"),
        ({"sources": [[]], "first": 12}, Conflict, "exists already"),
        ({"sources": [[], []], "first": 9}, Conflict, "exists already"),
        ({"sources": [[]] * 9, "first": 5}, Conflict, "exists already"),
        ({"sources": [[]], "creates": DEFINITION}, Conflict, "instance .* exists already"),
        ({"sources": [[]], "origin": FOREIGN, "first": 5}, Conflict, "origin .* another instance"),
        ({"sources": [[10, 11, 12]], "first": 20}, ResourceExhausted, "more than 2 sources"),
    ],
)
def test_refused_and_nothing_has_changed(
    there: SchedulerDriver, asked: dict[str, object], error: type[BrokerRefusal], sentence: str
) -> None:
    there.scheduler.limits = Limits(sources_per_node=2)
    good, bad = run(there, [[]], b"good--------"), run(there, **asked)  # type: ignore[arg-type]
    before = there.everything()
    with pytest.raises(error, match=sentence):
        there.submit(good, bad)
    assert there.everything() == before


@pytest.mark.parametrize("shorten", ["arguments", "sources"])
def test_columns_of_different_lengths_are_refused(there: SchedulerDriver, shorten: str) -> None:
    bad = run(there, [[], []], first=20)
    getattr(bad, shorten).pop()
    before = there.everything()
    with pytest.raises(InvalidArgument, match="different lengths"):
        there.submit(bad)
    assert there.everything() == before


def test_two_runs_of_one_call_may_not_take_the_same_counters(there: SchedulerDriver) -> None:
    before = there.everything()
    with pytest.raises(Conflict, match="exists already"):
        there.submit(run(there, [[], []], first=20), run(there, [[]], first=21))
    assert there.everything() == before


def test_a_call_in_pieces_makes_its_instance_once(driver: SchedulerDriver) -> None:
    driver.submit(
        run(driver, [[], [0]], creates=DEFINITION), run(driver, [[1], [2, 0]], first=2), run(driver, [[3]], first=4)
    )
    assert len(driver.ledger.instances) == 1
    assert driver.scheduler.graph.counts[State.QUEUED] == 1
    assert driver.scheduler.graph.counts[State.WAITING] == 4


def test_a_call_may_say_twice_that_it_makes_an_instance_but_not_in_two_ways(driver: SchedulerDriver) -> None:
    driver.submit(run(driver, [[]], creates=DEFINITION), run(driver, [[0]], first=1, creates=DEFINITION))
    assert len(driver.ledger.instances) == 1
    other = run(driver, [[]], instance=ELSEWHERE, creates=DEFINITION, origin=FOREIGN)
    same_but_not = run(driver, [[]], instance=ELSEWHERE, creates=("work:Other", b""), origin=FOREIGN, first=1)
    with pytest.raises(Conflict):
        driver.submit(other, same_but_not)


def test_counters_may_come_in_any_order(driver: SchedulerDriver) -> None:
    driver.submit(run(driver, [[]], first=7, creates=DEFINITION))
    driver.submit(run(driver, [[]], first=3))
    driver.submit(run(driver, [[3]], first=5))
    nodes = [driver.scheduler.graph.find(node_id(counter)) for counter in (3, 5, 7)]
    assert all(nodes)
    assert driver.scheduler.graph.find(node_id(4)) is None


def test_an_instance_without_nodes_is_on_record_and_not_in_memory(driver: SchedulerDriver) -> None:
    """The original's clients make an instance in a call of its own."""
    driver.submit(run(driver, [], creates=("", b"")))
    assert [row.id for row in driver.ledger.instances.values()] == [HERE]
    assert driver.in_memory() == {}
    driver.submit(run(driver, [[]]))
    assert driver.scheduler.graph.counts[State.QUEUED] == 1


def test_an_empty_run_beside_a_full_one_of_the_same_origin_takes_nothing_away(driver: SchedulerDriver) -> None:
    driver.submit(run(driver, [], creates=DEFINITION), run(driver, [[]]))
    driver.submit(run(driver, [], first=5))
    assert driver.scheduler.graph.find(node_id(0)) is not None
    assert HERE in driver.scheduler.graph.instances


def test_an_instance_whose_first_nodes_fail_at_once_keeps_the_others(driver: SchedulerDriver) -> None:
    worker = driver.worker()
    instance = driver.spawn("a")
    worker.fail("a")
    doomed = driver.run(instance, b"doomed------", ["b <- a"])
    free = driver.run(instance, b"free--------", ["c"])
    driver.submit(doomed, free)
    driver.add(instance, "d <- c")
    assert driver.finish(worker) == ["c", "d"]


def test_a_step_that_changes_nothing_leaves_nothing_to_commit(driver: SchedulerDriver) -> None:
    driver.worker()
    driver.step()
    assert not driver.changes
