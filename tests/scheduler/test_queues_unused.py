"""The lane of a function leaves memory when nothing is in it any more, and not before."""

import pytest

from dagorama_broker.scheduler import Effects
from tests.support.driver import WORK, Heart, function

OTHER = function("other", max_concurrency=1)


def lanes(heart: Heart) -> set[str]:
    return {of.name for of in heart.scheduler.graph.queues}


def drop_all(heart: Heart) -> list[int]:
    """Have all functions dropped that can be; their ids."""
    graph = heart.scheduler.graph
    heart.scheduler.drop_functions(list(graph.queue_by_id))
    return graph.changes.functions_gone


@pytest.mark.parametrize("state", ["waiting", "queued", "claimed", "paused"])
def test_what_an_unfinished_node_is_in_stays(heart: Heart, state: str) -> None:
    of = function("other", delay=5.0 if state == "paused" else 0.0)
    if state == "claimed":
        heart.worker()
    heart.spawn("first", "last <- first", of=of)
    assert drop_all(heart) == []
    assert of.name in lanes(heart)


def test_staged_children_have_no_queue_before_they_are_made(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("parent")
    hand.make("parent", "child", of=OTHER)
    drop_all(heart)
    assert OTHER.name not in lanes(heart)
    hand.complete("parent")
    assert hand.held.keys() == {"child"}
    assert OTHER.name in lanes(heart)


def test_a_concurrency_key_keeps_its_function(heart: Heart) -> None:
    heart.spawn("a @key", of=OTHER)
    assert drop_all(heart) == []
    heart.cancel("a")
    heart.effects = Effects()
    assert len(drop_all(heart)) == 1
    assert not lanes(heart)
    assert heart.scheduler.graph.functions_size == 0


def test_a_failed_node_keeps_nothing_of_itself_alive(heart: Heart) -> None:
    hand = heart.worker()
    heart.spawn("a", of=OTHER)
    hand.fail("a")
    heart.effects = Effects()
    del hand
    assert len(drop_all(heart)) == 1


def test_a_function_that_comes_again_has_a_new_number(heart: Heart) -> None:
    graph = heart.scheduler.graph
    before = graph.make_lane(WORK).id
    drop_all(heart)
    assert graph.make_lane(WORK).id > before
