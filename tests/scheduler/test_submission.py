"""What a client may ask for, and what is refused: then nothing has changed."""

from collections.abc import Sequence

import pytest

from dagorama_broker.errors import BrokerRefusal, Conflict, InvalidArgument, NotFound, ResourceExhausted
from dagorama_broker.model.domain import State
from dagorama_broker.scheduler import Limits, NewNodes
from tests.support.driver import WORK, Heart

HERE, ELSEWHERE = b"instance-of-here", b"instance-of-else"
ORIGIN, FOREIGN = b"origin------", b"foreign-----"
DEFINITION = ("work:Work", b"")


def run(
    heart: Heart,
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
def there(heart: Heart) -> Heart:
    """Two instances: counters 10 to 12 of one origin are taken here, one node elsewhere."""
    heart.submit(run(heart, [[], [10], []], first=10, creates=DEFINITION))
    heart.submit(run(heart, [[]], FOREIGN, instance=ELSEWHERE, creates=DEFINITION))
    return heart


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
    there: Heart, asked: dict[str, object], error: type[BrokerRefusal], sentence: str
) -> None:
    there.scheduler.limits = Limits(sources_per_node=2)
    good, bad = run(there, [[]], b"good--------"), run(there, **asked)  # type: ignore[arg-type]
    before = there.everything()
    with pytest.raises(error, match=sentence):
        there.submit(good, bad)
    assert there.everything() == before


@pytest.mark.parametrize("shorten", ["arguments", "sources"])
def test_columns_of_different_lengths_are_refused(there: Heart, shorten: str) -> None:
    bad = run(there, [[], []], first=20)
    getattr(bad, shorten).pop()
    before = there.everything()
    with pytest.raises(InvalidArgument, match="different lengths"):
        there.submit(bad)
    assert there.everything() == before


def test_two_runs_of_one_call_may_not_take_the_same_counters(there: Heart) -> None:
    before = there.everything()
    with pytest.raises(Conflict, match="exists already"):
        there.submit(run(there, [[], []], first=20), run(there, [[]], first=21))
    assert there.everything() == before


def test_a_call_in_pieces_makes_its_instance_once(heart: Heart) -> None:
    heart.submit(
        run(heart, [[], [0]], creates=DEFINITION), run(heart, [[1], [2, 0]], first=2), run(heart, [[3]], first=4)
    )
    assert len(heart.ledger.instances) == 1
    assert heart.scheduler.graph.counts[State.QUEUED] == 1
    assert heart.scheduler.graph.counts[State.WAITING] == 4


def test_a_call_may_say_twice_that_it_makes_an_instance_but_not_in_two_ways(heart: Heart) -> None:
    heart.submit(run(heart, [[]], creates=DEFINITION), run(heart, [[0]], first=1, creates=DEFINITION))
    assert len(heart.ledger.instances) == 1
    other = run(heart, [[]], instance=ELSEWHERE, creates=DEFINITION, origin=FOREIGN)
    same_but_not = run(heart, [[]], instance=ELSEWHERE, creates=("work:Other", b""), origin=FOREIGN, first=1)
    with pytest.raises(Conflict):
        heart.submit(other, same_but_not)


def test_counters_may_come_in_any_order(heart: Heart) -> None:
    heart.submit(run(heart, [[]], first=7, creates=DEFINITION))
    heart.submit(run(heart, [[]], first=3))
    heart.submit(run(heart, [[3]], first=5))
    nodes = [heart.scheduler.graph.find(node_id(counter)) for counter in (3, 5, 7)]
    assert all(nodes)
    assert heart.scheduler.graph.find(node_id(4)) is None


def test_an_instance_without_nodes_is_on_record_and_not_in_memory(heart: Heart) -> None:
    """The original's clients make an instance in a call of its own."""
    heart.submit(run(heart, [], creates=("", b"")))
    assert [row.id for row in heart.ledger.instances.values()] == [HERE]
    assert heart.in_memory() == {}
    heart.submit(run(heart, [[]]))
    assert heart.scheduler.graph.counts[State.QUEUED] == 1


def test_an_empty_run_beside_a_full_one_of_the_same_origin_takes_nothing_away(heart: Heart) -> None:
    heart.submit(run(heart, [], creates=DEFINITION), run(heart, [[]]))
    heart.submit(run(heart, [], first=5))
    assert heart.scheduler.graph.find(node_id(0)) is not None
    assert HERE in heart.scheduler.graph.instances


def test_an_instance_whose_first_nodes_fail_at_once_keeps_the_others(heart: Heart) -> None:
    worker = heart.worker()
    instance = heart.spawn("a")
    worker.fail("a")
    doomed = heart.run(instance, b"doomed------", ["b <- a"])
    free = heart.run(instance, b"free--------", ["c"])
    heart.submit(doomed, free)
    heart.add(instance, "d <- c")
    assert heart.finish(worker) == ["c", "d"]


def test_a_step_that_changes_nothing_leaves_nothing_to_commit(heart: Heart) -> None:
    heart.worker()
    heart.step()
    assert not heart.changes
