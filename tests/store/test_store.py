"""What every store does, whatever it is made of: one suite, run against each."""

import os
from collections.abc import Callable
from hashlib import sha256

import pytest

from dagorama_broker.errors import SettingsError, StoreError
from dagorama_broker.model.domain import EagerState, State
from dagorama_broker.model.looks import Seen, Wanted
from dagorama_broker.model.queries import EndedNode, FoundNode, LiveNode, StoredInstance
from dagorama_broker.model.rows import (
    Changes,
    EagerAttemptRow,
    EagerBlockRow,
    FunctionRow,
    InstanceEnd,
    LargeRow,
    NameRow,
    ProgressRow,
    RemovedRow,
    ResolvedRow,
    TraceRow,
)
from dagorama_broker.store import Store, open_store
from tests.support.records import (
    ORIGIN,
    PLAIN,
    RICH,
    completed,
    dead,
    failed,
    graph,
    instance_row,
    keys,
    node,
    node_id,
    restart,
    run_row,
)

# --- epochs and emptiness -----------------------------------------------------------------------------


def test_the_first_epoch_is_one_and_each_start_counts_up(store: Store) -> None:
    assert [restart(store), restart(store)] == [2, 3]


def test_a_new_store_is_empty(store: Store) -> None:
    live = store.live()
    assert (live.functions, live.instances, live.blocks, live.nodes, live.ended, live.progress, live.workers) == (
        [], [], [], [], [], [], [],
    )  # fmt: skip
    assert (live.next_node, live.next_instance, live.next_function) == (1, 1, 1)


def test_nothing_is_found_where_nothing_is(store: Store) -> None:
    assert store.find([node_id(0)]) == {}
    assert store.outcome(1) is None
    assert store.last_block(ORIGIN, 1) is None
    assert store.is_new(bytes(16), ORIGIN)
    assert store.instance(bytes(16)) is None
    assert not store.has_instance(bytes(16))
    assert store.ended([1]) == []


# --- what is live -------------------------------------------------------------------------------------


def test_what_has_not_ended_is_live_after_a_restart(store: Store) -> None:
    store.commit(graph(node(1), node(2, 1), node(3, 1, 2)))
    restart(store)
    live = store.live()
    assert live.functions == [FunctionRow(1, PLAIN)]
    assert live.instances == [instance_row()]
    assert live.blocks == [run_row(0, 3, 1)]
    assert live.nodes == [LiveNode(1, 1, 1, b""), LiveNode(2, 1, 1, keys(1)), LiveNode(3, 1, 1, keys(1, 2))]
    assert live.ended == []


def test_trace_contexts_of_unfinished_instances_come_back(store: Store) -> None:
    changes = graph(node(1))
    changes.traces = [TraceRow(1, "a context")]
    store.commit(changes)
    restart(store)
    assert store.live().traces == {1: "a context"}


def test_a_function_comes_back_as_it_was(store: Store) -> None:
    store.commit(Changes(functions=[FunctionRow(1, PLAIN), FunctionRow(2, RICH)]))
    restart(store)
    assert store.live().functions == [FunctionRow(1, PLAIN), FunctionRow(2, RICH)]


def test_an_ended_source_comes_with_the_nodes_that_wait_for_it(store: Store) -> None:
    store.commit(graph(node(1), node(2), node(3, 1)))
    store.commit(Changes(outcomes=[completed(1), completed(2)]))
    live = store.live()
    assert [found.key for found in live.nodes] == [3]
    assert live.ended == [EndedNode(1, 1, 1, int(State.COMPLETED), b"", 0, (1 << 40) + 1)]


def test_what_an_ended_source_names_comes_along_and_so_on(store: Store) -> None:
    store.commit(graph(node(1), node(2), node(3), node(4), node(5, 1)))
    store.commit(Changes(outcomes=[completed(1, 2), completed(2, 3), completed(3), completed(4)]))
    assert [ended.key for ended in store.live().ended] == [1, 2, 3]


def test_a_resolving_node_is_live_and_brings_what_it_names(store: Store) -> None:
    store.commit(graph(node(1), node(2), node(3)))
    store.commit(Changes(outcomes=[completed(1, 2, 3, state=State.RESOLVING), completed(2)]))
    live = store.live()
    assert [found.key for found in live.nodes] == [1, 3]
    assert live.ended == [
        EndedNode(1, 1, 1, int(State.RESOLVING), keys(2, 3), 0, (1 << 40) + 1),
        EndedNode(2, 1, 1, int(State.COMPLETED), b"", 0, (1 << 40) + 2),
    ]


def test_a_node_that_is_resolved_is_live_no_more(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    store.commit(Changes(outcomes=[completed(1, 2, state=State.RESOLVING)]))
    store.commit(Changes(outcomes=[completed(2)], resolved=[ResolvedRow(1, int(State.COMPLETED), 0, 1700000003.5)]))
    restart(store)
    live = store.live()
    assert (live.nodes, live.ended, live.instances, live.blocks) == ([], [], [], [])
    assert store.outcome(1) == completed(1, 2)._replace(ended=1700000003.5, returned=1700000001.25)


def test_an_instance_that_has_ended_is_not_live(store: Store) -> None:
    store.commit(graph(node(1)))
    store.commit(graph(node(2, instance=2), instance=2, origin=b"other-origin"))
    store.commit(Changes(outcomes=[completed(1)], instance_ends=[InstanceEnd(1, 1700000004.0, False)]))
    live = store.live()
    assert live.instances == [instance_row(2)]
    assert [run.instance for run in live.blocks] == [2]
    assert [found.key for found in live.nodes] == [2]


def test_an_instance_that_got_a_new_node_is_live_again(store: Store) -> None:
    store.commit(graph(node(1)))
    store.commit(Changes(outcomes=[completed(1)], instance_ends=[InstanceEnd(1, 1700000004.0, False)]))
    again = Changes(blocks=[run_row(1, 1, 2)], nodes=[node(2)], instance_ends=[InstanceEnd(1, None, False)])
    store.commit(again)
    live = store.live()
    assert live.instances == [instance_row()]
    assert [found.key for found in live.nodes] == [2]


def test_live_nodes_come_in_the_order_of_their_keys(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    store.commit(graph(node(3, instance=2), instance=2, origin=b"other-origin"))
    store.commit(Changes(blocks=[run_row(2, 1, 4)], nodes=[node(4)]))
    assert [found.key for found in store.live().nodes] == [1, 2, 3, 4]


def test_numbers_go_on_where_they_were(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    store.commit(Changes(outcomes=[completed(1), completed(2)], instance_ends=[InstanceEnd(1, 1.0, False)]))
    restart(store)
    live = store.live()
    assert (live.next_node, live.next_instance, live.next_function) == (3, 2, 2)


def test_progress_comes_back_for_what_has_not_ended(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    first, last = ProgressRow(1, 1, 0, 0, 1700000009.5, b"why", 9.5, 7, 6), ProgressRow(1, 2, 1, 3, 0.0, None)
    store.commit(Changes(progress=[first, ProgressRow(2, 1, 0, 0, 0.0, b"why")]))
    store.commit(Changes(progress=[last], outcomes=[completed(2)]))
    restart(store)
    assert store.live().progress == [last]


def test_workers_on_record_are_those_that_have_not_left(store: Store) -> None:
    store.commit(Changes(workers_joined=[(b"a" * 16, "host:1"), (b"b" * 16, "host:2")]))
    store.commit(Changes(workers_joined=[(b"a" * 16, "host:3")], workers_left=[b"b" * 16, b"c" * 16]))
    restart(store)
    assert store.live().workers == [(b"a" * 16, "host:3")]


# --- reading by key and by ID -------------------------------------------------------------------------


def test_arguments_and_values_come_back_by_key(store: Store) -> None:
    store.commit(graph(*(node(key) for key in range(1, 1001))))
    store.commit(Changes(outcomes=[completed(key) for key in range(1, 1001)]))
    wanted = range(1000, 0, -3)
    assert store.arguments(wanted) == {key: b"arguments of %d" % key for key in wanted}
    assert store.values(wanted) == {key: b"value of %d" % key for key in wanted}


@pytest.mark.parametrize("count", [1, 3, 5, 21, 127, 128, 149, 300])
def test_a_commit_of_any_size_has_all_of_its_rows(store: Store, count: int) -> None:
    keys = range(1, count + 1)
    for key in keys:
        if key == 1:
            changes = graph(node(1))
        else:
            changes.instances.append(instance_row(key))
            changes.blocks.append(run_row(0, 1, key, key, b"%012d" % key))
            changes.nodes.append(node(key, instance=key))
    store.commit(changes)
    ends = [InstanceEnd(key, float(key), False) for key in keys]
    store.commit(Changes(outcomes=[completed(key) for key in keys], instance_ends=ends))
    restart(store)
    assert store.values(keys) == {key: b"value of %d" % key for key in keys}
    stored = [store.instance(key.to_bytes(16, "big")) for key in keys]
    assert [(each.row.key, each.ended) for each in stored if each is not None] == [(key, float(key)) for key in keys]
    assert not store.live().nodes


def test_the_value_of_a_resolving_node_is_there(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    store.commit(Changes(outcomes=[completed(1, 2, state=State.RESOLVING)]))
    assert store.values([1]) == {1: b"value of 1"}


def test_arguments_or_a_value_that_is_missing_is_an_error_that_names_the_node(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    store.commit(Changes(outcomes=[failed(2)]))
    with pytest.raises(StoreError, match="no arguments of node 7"):
        store.arguments([1, 7])
    for key in (1, 2):
        with pytest.raises(StoreError, match=f"no value of node {key}"):
            store.values([key])


def test_a_failure_is_kept_with_the_root_cause_and_named_by_the_others(store: Store) -> None:
    store.commit(graph(node(1), node(2, 1)))
    store.commit(Changes(outcomes=[failed(1), failed(2, root_cause=1)]))
    assert store.outcome(1) == failed(1)
    assert store.outcome(2) == failed(2, root_cause=1)
    assert store.ended([2]) == [EndedNode(2, 1, 1, int(State.FAILED), b"", 1, (1 << 40) + 2)]


def test_a_resolving_node_may_fail_with_what_it_named(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    store.commit(Changes(outcomes=[completed(1, 2, state=State.RESOLVING)]))
    store.commit(Changes(outcomes=[failed(2)], resolved=[ResolvedRow(1, int(State.FAILED), 2, 1700000003.5)]))
    assert store.ended([1]) == [
        EndedNode(1, 1, 1, int(State.FAILED), keys(2), 2, (1 << 40) + 1),
        EndedNode(2, 1, 1, int(State.FAILED), b"", 2, (1 << 40) + 2),
    ]


def test_ended_nodes_come_with_all_that_their_values_name(store: Store) -> None:
    store.commit(graph(node(1), node(2), node(3), node(4), node(5)))
    store.commit(Changes(outcomes=[completed(1, 2, 3), completed(2, 4), completed(3, 4), completed(4)]))
    assert [ended.key for ended in store.ended([1, 5])] == [1, 2, 3, 4]


def test_a_node_is_found_by_its_id(store: Store) -> None:
    store.commit(graph(node(1), node(2), node(3)))
    store.commit(Changes(blocks=[run_row(10, 2, 4)], nodes=[node(4), node(5)]))
    store.commit(Changes(outcomes=[completed(1), completed(3, 5, state=State.RESOLVING)]))
    wanted = [node_id(counter) for counter in (0, 1, 2, 11)]
    ended = EndedNode(1, 1, 1, int(State.COMPLETED), b"", 0, (1 << 40) + 1)
    assert store.find(wanted) == {
        wanted[0]: FoundNode(wanted[0], 1, 1, 1, ended),
        wanted[1]: FoundNode(wanted[1], 2, 1, 1, None),
        wanted[2]: FoundNode(wanted[2], 3, 1, 1, None),
        wanted[3]: FoundNode(wanted[3], 5, 1, 1, None),
    }


def test_ids_outside_of_every_run_are_left_out(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    store.commit(Changes(blocks=[run_row(10, 1, 3)], nodes=[node(3)]))
    assert store.find([node_id(2), node_id(9), node_id(11), node_id(0, b"other-origin")]) == {}


def test_an_id_is_told_by_its_key(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    store.commit(Changes(blocks=[run_row(10, 2, 3)], nodes=[node(3), node(4)]))
    assert store.ids([4, 1, 2]) == {1: node_id(0), 2: node_id(1), 4: node_id(11)}
    with pytest.raises(StoreError, match="no ID of node 5"):
        store.ids([1, 5])


def test_a_run_is_found_by_its_first_counter_only(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    assert store.last_block(ORIGIN, 1) == run_row(0, 2, 1)
    assert store.last_block(ORIGIN, 0) is None


def test_the_last_run_before_a_counter_is_found(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    store.commit(Changes(blocks=[run_row(10, 2, 3)], nodes=[node(3), node(4)]))
    assert store.last_block(ORIGIN, 0) is None
    assert store.last_block(b"another-one-", 5) is None
    assert [store.last_block(ORIGIN, before) for before in (1, 10)] == [run_row(0, 2, 1)] * 2
    assert [store.last_block(ORIGIN, before) for before in (11, 2**32)] == [run_row(10, 2, 3)] * 2


def test_ids_are_new_until_an_instance_or_a_node_has_them(store: Store) -> None:
    store.commit(graph(node(1)))
    id, other = instance_row(1).id, instance_row(2).id
    assert store.is_new(other, b"another-one-")
    assert not store.is_new(id, b"another-one-")
    assert not store.is_new(other, ORIGIN)


def test_a_node_is_found_with_its_sources(store: Store) -> None:
    store.commit(graph(node(1), node(2, 1)))
    assert store.find([node_id(1)])[node_id(1)].sources == keys(1)


def test_the_last_of_several_ends_of_an_instance_counts(store: Store) -> None:
    """An instance that fails, and one that ends and gets nodes, has two in one step."""
    instances = [instance_row(key) for key in (1, 2)]
    store.commit(Changes(instances=instances))
    two, one = [InstanceEnd(1, None, True), InstanceEnd(1, 5.0, True)], InstanceEnd(2, 6.0, False)
    ends = [*two, one, one._replace(ended=None)]
    store.commit(Changes(instance_ends=ends))
    assert store.instance(instances[0].id) == StoredInstance(instances[0], 5.0, True)
    assert store.instance(instances[1].id) == StoredInstance(instances[1], None, False)


def test_an_instance_is_found_by_its_id_with_its_end(store: Store) -> None:
    store.commit(graph(node(1)))
    id = instance_row().id
    assert store.has_instance(id)
    assert store.instance(id) == StoredInstance(instance_row(), None, False)
    store.commit(Changes(instance_ends=[InstanceEnd(1, 1700000004.5, True)]))
    assert store.instance(id) == StoredInstance(instance_row(), 1700000004.5, True)


# --- all or none --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "repeat",
    [
        lambda changes: changes.nodes.append(node(1)),
        lambda changes: changes.outcomes.append(completed(1)),
        lambda changes: changes.instances.append(instance_row()),
        lambda changes: changes.instances.append(instance_row()._replace(key=9)),
        lambda changes: changes.blocks.append(run_row(0, 1, 9)),
        lambda changes: changes.functions.append(FunctionRow(1, RICH)),
        lambda changes: changes.nodes.extend([node(8), node(8)]),
    ],
    ids=["node", "result", "instance", "instance id", "run", "function", "twice in one"],
)
def test_what_is_there_is_never_written_over_and_nothing_of_that_commit_is_kept(
    store: Store, repeat: Callable[[Changes], None]
) -> None:
    store.commit(graph(node(1), node(2)))
    store.commit(Changes(outcomes=[completed(1)]))
    changes = Changes(nodes=[node(3)], blocks=[run_row(2, 1, 3)], outcomes=[completed(2)], workers_joined=[(b"w", "w")])
    repeat(changes)
    with pytest.raises(StoreError):
        store.commit(changes)
    assert store.values([1]) == {1: b"value of 1"}
    assert store.outcome(2) is None
    assert store.find([node_id(2)]) == {}
    assert store.live().workers == []


def test_a_store_that_refused_a_commit_takes_the_next(store: Store) -> None:
    store.commit(graph(node(1)))
    with pytest.raises(StoreError):
        store.commit(Changes(nodes=[node(1)]))
    store.commit(Changes(outcomes=[completed(1)]))
    assert store.values([1]) == {1: b"value of 1"}


def test_the_same_large_value_may_be_named_twice(store: Store) -> None:
    store.commit(Changes(large=[LargeRow(1, bytes(32)), LargeRow(1, bytes(32))]))
    store.commit(Changes(large=[LargeRow(1, bytes(32)), LargeRow(2, bytes(32))]))


# --- large values -------------------------------------------------------------------------------------


def test_a_large_value_comes_back_in_chunks_of_at_most_a_mebibyte(store: Store) -> None:
    content = os.urandom(2_500_000)
    named = store.put_large(content[start : start + 700_001] for start in range(0, len(content), 700_001))
    assert named == (sha256(content).digest(), len(content))
    chunks = list(store.get_large(named[0]) or ())
    assert b"".join(chunks) == content
    assert max(map(len, chunks)) <= 1 << 20


def test_a_large_value_that_was_never_given_is_not_there(store: Store) -> None:
    missing = sha256(b"missing").digest()
    assert not store.has_large(missing)
    assert store.get_large(missing) is None


def test_a_large_value_outlives_a_restart(store: Store) -> None:
    name, _ = store.put_large([b"content"])
    restart(store)
    assert store.has_large(name)
    assert list(store.get_large(name) or ()) == [b"content"]


def test_an_empty_large_value_is_a_value(store: Store) -> None:
    name, length = store.put_large([])
    assert length == 0
    assert b"".join(store.get_large(name) or ()) == b""


# --- which store --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "broker.db", "sqlite://", "sqlite:///", "sqlite:////", "sqlite:///:memory:", "mysql:///x"]
)
def test_a_store_that_is_none_of_ours_is_refused_with_the_forms_that_are(url: str) -> None:
    with pytest.raises(SettingsError, match=r"sqlite:////absolute/path\.db"):
        open_store(url)


# --- what eager attempts have made ----------------------------------------------------------------------


def eager_attempts(*rows: EagerAttemptRow, made: dict[int, int] | None = None) -> Changes:
    """`made` has the attempt of each run, by its first key."""
    return Changes(eager_attempts=list(rows), eager_blocks=[EagerBlockRow(*each) for each in (made or {}).items()])


def spread(store: Store) -> None:
    """Five nodes, each a run of its own."""
    store.commit(graph(node(1)))
    nodes = [node(key) for key in range(2, 6)]
    store.commit(Changes(nodes=nodes, blocks=[run_row(each.key, 1, each.key) for each in nodes]))


def test_an_open_eager_attempt_comes_back_with_its_runs_and_with_what_goes_back_to_it(store: Store) -> None:
    spread(store)
    store.commit(eager_attempts(EagerAttemptRow(7, 1, 0, EagerState.OPEN), made={2: 7, 3: 7}))
    store.commit(eager_attempts(EagerAttemptRow(8, 2, 7, EagerState.COMMITTED), made={4: 8}))
    store.commit(eager_attempts(EagerAttemptRow(9, 4, 8, EagerState.COMMITTED), made={5: 9}))
    restart(store)
    live = store.live()
    assert live.eager_attempts == [
        EagerAttemptRow(7, 1, 0, EagerState.OPEN),
        EagerAttemptRow(8, 2, 7, EagerState.COMMITTED),
        EagerAttemptRow(9, 4, 8, EagerState.COMMITTED),
    ]
    assert [(attempt, run.first_key) for attempt, run in live.eager_blocks] == [(7, 2), (7, 3), (8, 4), (9, 5)]
    assert live.eager_blocks[0][1] == run_row(2, 1, 2)


def test_an_eager_attempt_that_has_ended_is_not_live_nor_is_what_goes_back_to_it(store: Store) -> None:
    spread(store)
    store.commit(
        eager_attempts(
            EagerAttemptRow(7, 1, 0, EagerState.OPEN), EagerAttemptRow(8, 2, 7, EagerState.OPEN), made={2: 7, 3: 8}
        )
    )
    store.commit(eager_attempts(EagerAttemptRow(8, 2, 7, EagerState.COMMITTED)))
    store.commit(eager_attempts(EagerAttemptRow(7, 1, 0, EagerState.COMMITTED)))
    store.commit(
        eager_attempts(
            EagerAttemptRow(9, 1, 0, EagerState.OPEN), EagerAttemptRow(9, 1, 0, EagerState.ABORTED), made={4: 9}
        )
    )
    restart(store)
    assert (store.live().eager_attempts, store.live().eager_blocks) == ([], [])


def test_nodes_of_dead_attempts_are_told_from_others(store: Store) -> None:
    spread(store)
    store.commit(
        eager_attempts(
            EagerAttemptRow(7, 1, 0, EagerState.ABORTED),
            EagerAttemptRow(8, 2, 7, EagerState.COMMITTED),
            made={2: 7, 3: 8},
        )
    )
    store.commit(eager_attempts(EagerAttemptRow(9, 1, 0, EagerState.COMMITTED), made={4: 9}))
    assert dead(store, [1, 2, 3, 4, 5]) == {2, 3}
    assert dead(store, []) == set()


def test_no_run_is_made_by_two_attempts(store: Store) -> None:
    spread(store)
    store.commit(eager_attempts(EagerAttemptRow(7, 1, 0, EagerState.OPEN), made={2: 7}))
    with pytest.raises(StoreError):
        store.commit(eager_attempts(EagerAttemptRow(8, 1, 0, EagerState.OPEN), made={2: 8}))


def test_all_used_ids_are_read_in_pages(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    store.commit(graph(node(3, instance=2), instance=2, origin=b"origin-of-it"))
    used = sorted([instance_row().id, instance_row(2).id, ORIGIN, b"origin-of-it"])
    assert store.used_ids(b"", 10) == used
    assert store.used_ids(b"", 3) == used[:3]
    assert store.used_ids(used[2], 3) == used[3:]
    assert store.used_ids(used[3], 3) == []
    store.commit(Changes(removed=[RemovedRow(2, instance_row(2).id, 5.5, False, 60.0)]))
    assert {*store.used_ids(b"", 10)} >= {instance_row().id, instance_row(2).id, ORIGIN}


def test_a_look_answers_all_that_submissions_must_know_at_once(store: Store) -> None:
    changes = graph(node(1), node(2))
    changes.names = [NameRow(1, "work:Plain", "order-1", b"digest")]
    store.commit(changes)
    store.commit(graph(node(3, instance=2), instance=2, origin=b"origin-of-it"))
    gone = RemovedRow(2, instance_row(2).id, 5.5, False, 60.0)
    store.commit(Changes(removed=[gone]))
    sha256, _ = store.put_large(iter([b"large"]))
    wanted = Wanted(
        {instance_row().id, instance_row(2).id, b"never used"}, {(ORIGIN, 2), (ORIGIN, 0), (b"unused------", 9)},
        {("work:Plain", "order-1"), ("work:Plain", "order-2")}, {sha256, bytes(32)},
    )  # fmt: skip
    assert store.look(wanted) == Seen(
        {instance_row().id, instance_row(2).id}, {instance_row(2).id: gone},
        {ORIGIN}, {(ORIGIN, 2): changes.blocks[0]}, {("work:Plain", "order-1"): changes.names[0]}, {sha256},
    )  # fmt: skip
    assert store.look(Wanted()) == Seen()
    assert not Wanted()
