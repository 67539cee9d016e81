"""The trace contexts of attempts, as far as they are kept."""

from dagorama_broker.engine.traces import MOST_LINKS, AttemptTraces
from dagorama_broker.model.domain import Function
from dagorama_broker.scheduler import FunctionQueue, Instance, Node

QUEUE, INSTANCE = FunctionQueue(1, Function("f", "h", "q")), Instance(1, b"i" * 16)


def nodes(*keys: int) -> list[Node]:
    return [Node(key, INSTANCE, QUEUE, None) for key in keys]


def test_a_later_attempt_replaces_an_earlier_one() -> None:
    traces = AttemptTraces()
    traces.keep(1, "one")
    traces.keep(1, "two")
    assert list(traces.of(nodes(1, 2))) == [(1, "two")]


def test_only_the_latest_are_kept() -> None:
    traces = AttemptTraces(most=2)
    for key in (1, 2, 1, 3):
        traces.keep(key, f"{key}")
    assert list(traces.of(nodes(1, 2, 3))) == [(1, "1"), (3, "3")]


def test_a_wide_join_links_to_a_bounded_number_of_attempts() -> None:
    traces = AttemptTraces()
    for key in range(1, 1_000):
        traces.keep(key, "t")
    assert len(list(traces.of(nodes(*range(1, 1_000))))) == MOST_LINKS
