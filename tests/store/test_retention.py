"""What every store does when instances are removed: gone at once for whoever asks, then row by row, keys never reused.

One suite, run against each store.
"""

from collections.abc import Iterable

import pytest

from dagorama_broker.model.delays import DelayRow
from dagorama_broker.model.domain import EagerState, State
from dagorama_broker.model.rows import (
    Changes,
    EagerAttemptRow,
    EagerBlockRow,
    FunctionRow,
    InstanceEnd,
    KeyRow,
    LargeRow,
    LinkRow,
    ProgressRow,
    RemovedRow,
    ResolvedRow,
    TraceRow,
)
from dagorama_broker.store import Store
from dagorama_broker.store.memory import retention as memory_retention
from dagorama_broker.store.sql import retention as sqlite_retention
from tests.support.records import PLAIN, completed, dead, graph, instance_row, keys, node, node_id, restart, run_row

SIZE = 10  #: nodes of each instance


def origin_of(instance: int) -> bytes:
    return b"origin-%05d" % instance


def keys_of(instance: int) -> range:
    return range((instance - 1) * SIZE + 1, instance * SIZE + 1)


def end(store: Store, *instances: int, failed: bool = False, at: float = 0.0) -> None:
    """Instances of ten nodes that ended at the time of their key, or then."""
    for instance in instances:
        nodes = [node(key, instance=instance) for key in keys_of(instance)]
        changes = graph(*nodes, instance=instance, origin=origin_of(instance))
        changes.outcomes = [completed(key) for key in keys_of(instance)]
        changes.instance_ends = [InstanceEnd(instance, at or float(instance), failed)]
        store.commit(changes)


def tombstone(instance: int, kept: float = 60.0, failed: bool = False) -> RemovedRow:
    return RemovedRow(instance, instance_row(instance).id, float(instance), failed, kept)


def remove(store: Store, *instances: int) -> None:
    store.commit(Changes(removed=[tombstone(instance) for instance in instances]))


def expired(store: Store, before: float = 1e9, failed: bool = False, most: int = 100) -> list[int]:
    return [stored.row.key for stored in store.expired(failed, before, most)]


def is_there(store: Store, instance: int) -> bool:
    """All of it, or nothing of it that could be asked for."""
    ids = [node_id(counter, origin_of(instance)) for counter in range(SIZE)]
    found = store.find(ids)
    stored = store.instance(instance_row(instance).id)
    assert len(found) == (SIZE if stored else 0)
    return stored is not None


# --- whose time is over ---------------------------------------------------------------------------------


def test_instances_that_ended_come_in_the_order_of_their_ends_up_to_a_time(store: Store) -> None:
    for instance, ended in ((1, 30.0), (2, 10.0), (3, 20.0), (4, 40.0)):
        end(store, instance, at=ended)
    assert expired(store) == [2, 3, 1, 4]
    assert expired(store, before=30.0) == [2, 3, 1]
    assert expired(store, most=2) == [2, 3]
    assert expired(store, before=float("-inf")) == []


def test_failed_instances_come_apart(store: Store) -> None:
    end(store, 1)
    end(store, 2, failed=True)
    assert expired(store) == [1]
    assert expired(store, failed=True) == [2]


def test_an_instance_that_has_not_ended_or_got_a_new_node_does_not_come(store: Store) -> None:
    store.commit(graph(node(1)))
    end(store, 2)
    assert expired(store) == [2]
    store.commit(Changes(instance_ends=[InstanceEnd(2, None, False)]))
    assert expired(store) == []
    store.commit(Changes(instance_ends=[InstanceEnd(2, 5.0, True)]))
    assert (expired(store), expired(store, failed=True)) == ([], [2])


def test_what_another_instance_names_comes_when_the_last_that_names_it_is_removed(store: Store) -> None:
    end(store, 1, 2, 3, 4)
    store.commit(Changes(links=[LinkRow(2, 1), LinkRow(3, 1), LinkRow(3, 4), LinkRow(3, 1)]))
    assert expired(store) == [2, 3]
    restart(store)
    assert expired(store) == [2, 3]
    remove(store, 2)
    assert expired(store) == [3]
    remove(store, 3)
    assert expired(store) == [1, 4]


def test_instances_that_are_named_come_in_the_order_of_their_keys_with_those_that_name_them(store: Store) -> None:
    end(store, 1, 2, 3, 4)
    store.commit(graph(node(50, instance=5), instance=5, origin=origin_of(5)))
    store.commit(Changes(links=[LinkRow(2, 1), LinkRow(1, 3), LinkRow(5, 3), LinkRow(1, 5), LinkRow(3, 2)]))
    assert [stored.row.key for stored in store.named(0, 10)] == [1, 2, 3]
    assert [stored.row.key for stored in store.named(1, 1)] == [2]
    assert sorted(stored.row.key for stored in store.naming(3)) == [1, 5]
    assert store.naming(4) == []


def test_instances_that_name_each_other_may_go_together(store: Store) -> None:
    end(store, 1, 2, 3)
    store.commit(Changes(links=[LinkRow(1, 2), LinkRow(2, 1), LinkRow(2, 3)]))
    assert expired(store) == []
    remove(store, 1, 2)
    restart(store)
    assert [is_there(store, instance) for instance in (1, 2, 3)] == [False, False, True]
    assert expired(store) == [3]
    assert store.named(0, 10) == []


# --- gone at once -----------------------------------------------------------------------------------------


def test_a_removed_instance_is_gone_at_once_and_its_neighbours_are_whole(store: Store) -> None:
    end(store, 1, 2, 3)
    remove(store, 2)
    assert [is_there(store, instance) for instance in (1, 2, 3)] == [True, False, True]
    assert expired(store) == [1, 3]


def test_a_removed_instance_is_remembered_by_its_id(store: Store) -> None:
    end(store, 1)
    remove(store, 1)
    restart(store)
    assert store.removed(instance_row(1).id) == tombstone(1)
    assert store.has_instance(instance_row(1).id)
    assert not store.is_new(instance_row(1).id, b"another-one-")
    assert store.removed(instance_row(2).id) is None


def test_the_latest_removals_are_remembered_and_those_before_are_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (memory_retention, sqlite_retention):
        monkeypatch.setattr(module, "REMEMBERED", 5)
    for batch in ([1, 2, 3], [4], [5, 6, 7]):
        end(store, *batch)
        remove(store, *batch)
        restart(store)
    assert [store.removed(instance_row(key).id) is not None for key in range(1, 8)] == [False] * 2 + [True] * 5
    assert [store.has_instance(instance_row(key).id) for key in range(1, 8)] == [False] * 2 + [True] * 5


# --- from the disk ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3, SIZE, SIZE + 1, 1000])
def test_a_sweep_deletes_no_more_than_it_may_and_at_last_all_that_was_removed(store: Store, most: int) -> None:
    end(store, 1, 2, 3, 4)
    remove(store, 1, 3)
    sweeps = 1
    while store.sweep(most):
        assert [is_there(store, instance) for instance in (1, 2, 3, 4)] == [False, True, False, True]
        sweeps += 1
        if sweeps % 2:
            restart(store)
    assert sweeps >= 2 * SIZE / most
    assert left(store, [*keys_of(1), *keys_of(3)]) == 0
    assert left(store, [*keys_of(2), *keys_of(4)]) == 2 * SIZE
    assert not store.sweep(most)


def left(store: Store, wanted: Iterable[int]) -> int:
    """How many of these nodes have a result still."""
    return sum(store.outcome(key) is not None for key in wanted)


def test_what_was_only_removed_when_the_broker_died_is_swept_by_the_next(store: Store) -> None:
    end(store, 1)
    remove(store, 1)
    restart(store)
    assert store.last_block(origin_of(1), 1) is not None
    while store.sweep(4):
        restart(store)
    assert store.last_block(origin_of(1), 1) is None
    assert left(store, keys_of(1)) == 0


def test_what_a_removed_node_has_made_elsewhere_stays_and_is_simply_there(store: Store) -> None:
    end(store, 1, 2)
    run = keys_of(2)[0]
    store.commit(
        Changes(eager_attempts=[EagerAttemptRow(7, 1, 0, EagerState.ABORTED)], eager_blocks=[EagerBlockRow(run, 7)])
    )
    assert dead(store, [run]) == {run}
    remove(store, 1)
    while store.sweep(1000):
        restart(store)
    assert dead(store, [run]) == set()
    assert (store.live().eager_attempts, store.live().eager_blocks) == ([], [])


def test_every_row_of_a_node_goes_with_it(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    changes = Changes(outcomes=[completed(1, 2, state=State.RESOLVING), completed(2)])
    changes.resolved = [ResolvedRow(1, int(State.COMPLETED), 0, 2.0)]
    changes.progress = [ProgressRow(2, 1, 0, 0, 0.0, b"why")]
    changes.keys, changes.delays = [KeyRow(2, "key")], [DelayRow(2, 1.0, 0.0)]
    changes.traces = [TraceRow(1, "a context")]
    changes.large = [LargeRow(1, bytes(32))]
    changes.eager_attempts, changes.eager_blocks = [EagerAttemptRow(7, 1, 0, EagerState.ABORTED)], [EagerBlockRow(1, 7)]
    changes.instance_ends = [InstanceEnd(1, 1.0, False)]
    store.commit(changes)
    remove(store, 1)
    while store.sweep(1000):
        pass
    again = graph(node(1, instance=2), node(2, instance=2), instance=2, origin=b"other-origin")
    again.functions, again.outcomes = [], [completed(1, 2, state=State.RESOLVING)]
    store.commit(again)  # under keys that no broker would use again: what was left would show
    live = store.live()
    assert (live.progress, live.keys, live.delays, live.traces) == ([], {}, {}, {})
    assert dead(store, [1, 2]) == set()
    store.commit(
        Changes(eager_blocks=[EagerBlockRow(1, 8)], eager_attempts=[EagerAttemptRow(8, 2, 0, EagerState.OPEN)])
    )
    assert [(row.key, row.state) for row in live.ended] == [(1, int(State.RESOLVING))]


def test_an_instance_of_many_runs_goes_a_few_runs_at_a_time(store: Store) -> None:
    runs = [run_row(10 * number, 1, number) for number in range(1, 51)]
    changes = Changes(functions=[FunctionRow(1, PLAIN)], instances=[instance_row()], blocks=runs)
    changes.nodes = [node(run.first_key) for run in runs]
    changes.outcomes = [completed(run.first_key) for run in runs]
    changes.instance_ends = [InstanceEnd(1, 1.0, False)]
    store.commit(changes)
    remove(store, 1)
    assert store.sweep(10)
    assert left(store, range(1, 51)) >= 40
    while store.sweep(10):
        pass
    assert left(store, range(1, 51)) == 0
    assert store.last_block(runs[0].origin, 1 << 31) is None


# --- keys are never used again ---------------------------------------------------------------------------


def test_keys_of_what_was_removed_are_never_used_again(store: Store) -> None:
    end(store, 1, 2)
    before = store.live()
    remove(store, 1, 2)
    for _ in range(5):
        restart(store)
        live = store.live()
        assert (live.next_node, live.next_instance) == (before.next_node, before.next_instance) == (21, 3)
        store.sweep(5)
    assert left(store, range(1, 21)) == 0


def test_keys_go_on_after_those_that_are_there(store: Store) -> None:
    end(store, 1)
    remove(store, 1)
    store.sweep(1000)
    end(store, 2, 3)
    restart(store)
    live = store.live()
    assert (live.next_node, live.next_instance) == (31, 4)


# --- large values ---------------------------------------------------------------------------------------


def nobody(_: bytes) -> bool:
    return False


def collect(store: Store) -> None:
    while store.collect_large(0.0, 1, nobody):
        pass
    store.delete_collected(60.0)


def test_a_large_value_goes_with_the_last_node_that_names_it(store: Store) -> None:
    shared, own = (store.put_large([content])[0] for content in (b"shared", b"own"))
    end(store, 1, 2)
    large = [LargeRow(keys_of(1)[3], shared), LargeRow(keys_of(1)[7], shared), LargeRow(keys_of(2)[0], shared)]
    store.commit(Changes(large=[*large, LargeRow(keys_of(1)[4], own)]))
    collect(store)
    assert store.has_large(shared)
    assert store.has_large(own)
    remove(store, 1)
    while store.sweep(4):
        collect(store)
        assert store.has_large(shared)
    collect(store)
    assert store.has_large(shared)
    assert not store.has_large(own)
    remove(store, 2)
    store.sweep(1000)
    collect(store)
    assert not store.has_large(shared)


def test_a_large_value_that_no_node_names_is_kept_for_a_grace(store: Store) -> None:
    name, _ = store.put_large([b"content"])
    assert not store.collect_large(60.0, 10, nobody)
    assert store.has_large(name)
    collect(store)
    assert not store.has_large(name)
    assert store.get_large(name) is None


def test_a_large_value_that_is_wanted_stays_for_another_grace(store: Store) -> None:
    name, _ = store.put_large([b"content"])
    store.collect_large(0.0, 10, lambda sha256: sha256 == name)
    store.delete_collected(60.0)
    assert store.has_large(name)
    collect(store)
    assert not store.has_large(name)


def test_a_large_value_that_was_collected_may_be_given_again(store: Store) -> None:
    name, _ = store.put_large([b"content"])
    store.collect_large(0.0, 10, nobody)
    assert store.put_large([b"content"])[0] == name
    store.delete_collected(60.0)
    assert list(store.get_large(name) or ()) == [b"content"]


def test_a_large_value_that_is_removed_while_it_is_read_is_read_to_its_end(store: Store) -> None:
    content = [bytes([number]) * (1 << 20) for number in range(3)]
    name, _ = store.put_large(content)
    reading = store.get_large(name)
    assert reading is not None
    first = next(reading)
    collect(store)
    assert [first, *reading] == content


def test_removed_rows_leave_what_a_value_names_in_other_instances(store: Store) -> None:
    end(store, 1, 2)
    store.commit(Changes(links=[LinkRow(2, 1)]))
    remove(store, 2)
    store.sweep(1000)
    assert store.ended([1])[0].refs == keys()
    assert is_there(store, 1)
