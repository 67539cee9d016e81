"""What an instance needs of another is on record, so that the other is kept as long; and an empty one has ended."""

from dagorama_broker.model.rows import InstanceEnd, LinkRow
from tests.scheduler.test_submission import run
from tests.support.driver import WALL, Heart

OTHER = b"other-----------"


def test_a_value_that_names_a_node_of_another_instance_links_the_two(heart: Heart) -> None:
    worker = heart.worker()
    heart.spawn("parent")
    worker.make("parent", "child", "second", new="other")
    worker.complete("parent", "child", "second")
    assert heart.changes.links == [LinkRow(1, 2)]
    heart.finish(worker)
    assert heart.ledger.links == {LinkRow(1, 2)}


def test_a_value_that_names_what_has_ended_links_too(heart: Heart) -> None:
    worker = heart.worker()
    heart.spawn("other")
    heart.finish(worker)
    heart.spawn("parent")
    worker.complete("parent", "other")
    assert heart.ledger.links == {LinkRow(2, 1)}


def test_who_fails_with_a_node_of_another_instance_is_linked_to_its_culprit(heart: Heart) -> None:
    worker = heart.worker()
    heart.spawn("other")
    worker.fail("other")
    heart.spawn("parent", "dependent <- parent")
    worker.complete("parent", "other")
    assert heart.states("parent", "dependent") == ["FAILED", "FAILED"]
    assert heart.ledger.links == {LinkRow(2, 1)}


def test_what_stays_within_an_instance_or_only_makes_another_costs_no_link(heart: Heart) -> None:
    worker = heart.worker()
    heart.spawn("parent", "dependent <- parent")
    worker.make("parent", "child")
    worker.make("parent", "stranger", new="other")
    worker.complete("parent", "child")
    heart.finish(worker)
    assert heart.ledger.links == set()


def test_an_instance_without_nodes_has_ended_until_it_gets_one(heart: Heart) -> None:
    heart.submit(run(heart, [], instance=OTHER, creates=("work:Work", b"")))
    (row,) = heart.ledger.instances.values()
    assert heart.ledger.ends[row.key] == InstanceEnd(row.key, WALL, False)
    heart.add(OTHER, "a")
    assert heart.ledger.ends[row.key].ended is None
