"""Nodes as columns: ordinals from keys, states that change, blocks that come in parts."""

from __future__ import annotations

from base64 import b64decode

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.models.state import State
from dagorama_dashboard.following.columns import Columns, Shifted

CREATED = 1_000.0


def node_map(keys: list[tuple[int, int, int]], functions: list[str], **more: object) -> pb.NodeMap:
    """Return a message with blocks of keys, each with a size and a creator; functions take turns."""
    count = sum(size for _, size, _ in keys)
    fields: dict[str, object] = {
        "functions": functions,
        "block_key": [key for key, _, _ in keys],
        "block_size": [size for _, size, _ in keys],
        "block_creator": [creator for _, _, creator in keys],
        "block_created": [CREATED] * len(keys),
        "state": bytes([State.QUEUED] * count),
        "function": [place % len(functions) for place in range(count)],
        "ended": [0.0] * count,
        "microseconds": [0] * count,
        "worker": [0] * count,
        "failed_attempts": [0] * count,
        "source_count": [0] * count,
        "last": keys[-1][0] + keys[-1][1] - 1,
        "nodes": count,
        **more,
    }
    return pb.NodeMap(**fields)  # type: ignore[arg-type]  # the fields above, by name


@pytest.fixture
def columns() -> Columns:
    made = Columns(CREATED)
    made.add(node_map([(100, 1, 0), (200, 3, 100)], ["a:T.f", "a:T.g"]))
    made.add(node_map([(500, 2, 201)], ["a:T.g", "a:T.h"], nodes=6, before=4))
    return made


def test_ordinals_follow_the_keys_over_the_gaps_between_blocks(columns: Columns) -> None:
    keys = (99, 100, 101, 199, 200, 202, 203, 499, 500, 501, 502)
    assert [columns.ordinal(key) for key in keys] == [0, 1, 0, 0, 2, 4, 0, 0, 5, 6, 0]


def test_indices_of_functions_stay_the_same_in_later_messages(columns: Columns) -> None:
    data = columns.data()
    assert data["functions"] == ["T.f", "T.g", "T.h"]
    assert data["function"] == [0, 1, 0, 1, 1, 2]


def test_blocks_name_their_creator_by_its_ordinal(columns: Columns) -> None:
    assert columns.data()["blocks"] == [[1, 1, 0, 0], [2, 3, 1, 0], [5, 2, 3, 0]]


def test_only_other_states_are_changes(columns: Columns) -> None:
    states = bytes([State.CLAIMED, State.QUEUED, State.FAILED, State.COMPLETED])
    ordinals, changed = columns.change([100, 200, 501, 999], states)
    assert ordinals == [1, 6]
    assert list(changed) == [State.CLAIMED, State.FAILED]
    assert list(b64decode(columns.data()["state"])) == [2, 1, 1, 1, 1, 6]


@pytest.mark.parametrize("after", range(7))
def test_the_rest_after_any_ordinal_fits_to_what_comes_before(columns: Columns, after: int) -> None:
    whole, rest = columns.data(), columns.data(after)
    assert rest["function"] == whole["function"][after:]
    assert rest["count"] == 6 - after
    assert all(first + size - 1 > after for first, size, _, _ in rest["blocks"]) or after == 6


def test_sources_are_ordinals_and_stay_with_their_nodes() -> None:
    made = Columns(CREATED)
    made.add(node_map([(10, 2, 0)], ["a:T.f"]))
    made.add(node_map([(20, 2, 0)], ["a:T.f"], source_count=[2, 1], source=[10, 11, 20], nodes=4, before=2))
    assert made.data()["sources"] == {"count": [0, 0, 2, 1], "ordinal": [1, 2, 3]}
    assert made.data(3)["sources"] == {"count": [1], "ordinal": [3]}


def test_times_are_milliseconds_since_the_instance_was_created() -> None:
    made = Columns(CREATED)
    made.add(
        node_map(
            [(10, 3, 0)],
            ["a:T.f"],
            ended=[CREATED + 1.5, CREATED, 0.0],
            microseconds=[1_500_000, 7, 0],
            running_key=[12],
            running_since=[CREATED + 2.0],
            workers=["w"],
            worker=[1, 1, 1],
        )
    )
    data = made.data()
    assert data["ended"] == [1500, 1, 0]  # 1 at least for a node that has ended
    assert data["run"] == [1_500_000, 7, 0]
    assert data["running"] == [[3, 2000]]
    assert data["workers"] == ["w"]
    assert data["worker"] == [1, 1, 1]


def test_a_node_whose_value_came_from_others_ended_when_its_attempt_did() -> None:
    made = Columns(CREATED)
    ended = [CREATED + 9.0, 0.0]
    made.add(node_map([(10, 2, 0)], ["a:T.f"], ended=ended, returned_key=[10, 11], returned_at=[CREATED + 1] * 2))
    assert made.data()["ended"] == [1000, 0]


def test_nodes_that_were_put_before_known_ones_are_noticed(columns: Columns) -> None:
    with pytest.raises(Shifted):
        columns.add(node_map([(600, 1, 0)], ["a:T.g"], before=7))


def test_edges_between_functions_are_counted_by_kind() -> None:
    made = Columns(CREATED)
    made.add(node_map([(10, 2, 0)], ["a:T.f"]))
    more = node_map([(20, 3, 10)], ["a:T.g", "a:T.h"], source_count=[2, 0, 1], source=[10, 11, 20], nodes=5, before=2)
    made.add(more)
    assert made.edges() == {
        ("a:T.f", "a:T.g", "value"): 2,
        ("a:T.g", "a:T.g", "value"): 1,
        ("a:T.f", "a:T.g", "created"): 2,
        ("a:T.f", "a:T.h", "created"): 1,
    }
