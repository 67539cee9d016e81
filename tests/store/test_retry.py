"""What every store keeps and says of nodes that failed and may go on."""

import pytest

from dagorama_broker.errors import StoreError
from dagorama_broker.model.delays import DelayRow, NodeDelay
from dagorama_broker.model.domain import EagerState, State
from dagorama_broker.model.queries import (
    CreatedBlock,
    Edges,
    EdgesPage,
    EndedNode,
    Failed,
    FailedEnd,
    FailedNode,
    LiveNode,
    StoredInstance,
)
from dagorama_broker.model.rows import (
    Changes,
    EagerAttemptRow,
    EagerBlockRow,
    FunctionRow,
    InstanceEnd,
    KeyRow,
    ProgressRow,
    RebindingRow,
    ReboundRow,
    RemovedRow,
    ResolvedRow,
    RetriedRow,
    UsedFailureRow,
)
from dagorama_broker.store import Store
from tests.support.records import (
    ORIGIN,
    PLAIN,
    RICH,
    completed,
    failed,
    graph,
    instance_row,
    keys,
    node,
    node_id,
    restart,
    run_row,
)

FAILED, CANCELLED, RESOLVING, WAITING = map(int, (State.FAILED, State.CANCELLED, State.RESOLVING, State.WAITING))


def names_what_failed(store: Store) -> None:
    """Node 1 returned the promise of 2, which failed; 3 waits for 1; 4 has completed; 5 was cancelled."""
    store.commit(graph(node(1), node(2, 4), node(3, 1), node(4), node(5)))
    first = [completed(4), completed(1, 2, state=State.RESOLVING)]
    store.commit(Changes(outcomes=first, keys=[KeyRow(2, "k")], delays=[DelayRow(3, 2.5, 1700000000.25)]))
    cancelled = failed(5)._replace(state=CANCELLED, failure=None)
    store.commit(Changes(
        outcomes=[failed(2), failed(3, root_cause=2), cancelled], resolved=[ResolvedRow(1, FAILED, 2, 1700000003.5)],
        instance_ends=[InstanceEnd(1, 1700000003.5, True)],
    ))  # fmt: skip


def test_nodes_that_ended_badly_are_told_by_instance(store: Store) -> None:
    names_what_failed(store)
    bad = [FailedEnd(1, FAILED, 2), FailedEnd(2, FAILED, 2), FailedEnd(3, FAILED, 2), FailedEnd(5, CANCELLED, 5)]
    assert store.failed_ends(1) == bad
    assert store.failed_ends(7) == []
    restart(store)
    assert store.failed_ends(1) == bad


def test_all_that_failed_because_of_a_node_is_told_with_what_it_depends_on(store: Store) -> None:
    names_what_failed(store)
    assert store.failed([2, 99]) == Failed(
        nodes=[
            FailedNode(1, 1, 1, b"", 2, keys(2), None),
            FailedNode(2, 1, 1, keys(4), 2, None, b"failure of 2"),
            FailedNode(3, 1, 1, keys(1), 2, None, None),
        ],
        instances=[StoredInstance(instance_row(), 1700000003.5, True)],
        blocks=[run_row(0, 5, 1)],
        ended=[EndedNode(4, 1, 1, int(State.COMPLETED), b"", 0, (1 << 40) + 4)],
        keys={2: "k"},
        rebound={},
        others={1},
        delays={3: NodeDelay(2.5, 1700000000.25)},
    )


def test_what_was_cancelled_is_not_among_it(store: Store) -> None:
    names_what_failed(store)
    assert store.failed([5]).nodes == []


def test_failures_of_other_instances_are_found_by_their_root_cause(store: Store) -> None:
    store.commit(graph(node(1)))
    store.commit(graph(node(2, instance=2), instance=2, origin=b"other-origin"))
    store.commit(Changes(outcomes=[completed(1, 2, state=State.RESOLVING), failed(2)]))
    store.commit(Changes(resolved=[ResolvedRow(1, FAILED, 2, 1700000003.5)]))
    found = store.failed([2])
    assert [(row.key, row.instance) for row in found.nodes] == [(1, 1), (2, 2)]
    assert [stored.row.key for stored in found.instances] == [1, 2]
    assert found.blocks == [run_row(0, 1, 1), run_row(0, 1, 2, 2, b"other-origin")]
    assert found.others == set()


def test_a_thousand_failures_are_all_found(store: Store) -> None:
    store.commit(graph(*(node(key) for key in range(1, 1001))))
    store.commit(Changes(outcomes=[failed(key) for key in range(1, 1001)]))
    assert [row.key for row in store.failed(range(1, 1001)).nodes] == list(range(1, 1001))
    assert store.failed(range(1, 1000)).others == {1}


def test_what_goes_on_is_live_and_has_no_outcome_or_only_its_value(store: Store) -> None:
    names_what_failed(store)
    store.commit(Changes(
        retried=[RetriedRow(1, RESOLVING), RetriedRow(2, WAITING), RetriedRow(3, WAITING)],
        progress=[ProgressRow(2, 0, 0, 0, 0.0, b"failure of 2", 0.0, 77)], instance_ends=[InstanceEnd(1, None, True)],
    ))  # fmt: skip
    restart(store)
    live = store.live()
    assert live.nodes == [LiveNode(1, 1, 1, b""), LiveNode(2, 1, 1, keys(4)), LiveNode(3, 1, 1, keys(1))]
    assert [(row.key, row.state, row.root_cause) for row in live.ended] == [(1, RESOLVING, 0), (4, 5, 0)]
    assert live.progress == [ProgressRow(2, 0, 0, 0, 0.0, b"failure of 2", 0.0, 77)]
    assert (store.outcome(2), store.outcome(3)) == (None, None)
    outcome = store.outcome(1)
    assert outcome is not None
    assert outcome._replace(ended=0.0) == completed(1, 2, state=State.RESOLVING)._replace(ended=0.0)
    assert store.failed_ends(1) == [FailedEnd(5, CANCELLED, 5)]
    assert store.find([node_id(1)])[node_id(1)].ended is None


def test_what_goes_on_ends_once_more(store: Store) -> None:
    names_what_failed(store)
    revived = [RetriedRow(1, RESOLVING), RetriedRow(2, WAITING), RetriedRow(3, WAITING)]
    again = failed(3, root_cause=5)._replace(state=CANCELLED)  # in the same transaction
    store.commit(Changes(retried=revived, outcomes=[again], instance_ends=[InstanceEnd(1, None, True)]))
    store.commit(Changes(outcomes=[completed(2)], resolved=[ResolvedRow(1, int(State.COMPLETED), 0, 1700000009.5)]))
    assert store.outcome(1) == completed(1, 2)._replace(ended=1700000009.5, returned=1700000001.25)
    assert store.outcome(2) == completed(2)
    assert store.outcome(3) == again
    with pytest.raises(StoreError):
        store.commit(Changes(outcomes=[completed(2)]))


@pytest.mark.parametrize(
    "revived", [[RetriedRow(7, WAITING)], [RetriedRow(7, RESOLVING)]], ids=["waiting", "resolving"]
)
def test_what_has_not_ended_does_not_go_on_and_nothing_of_that_commit_is_kept(
    store: Store, revived: list[RetriedRow]
) -> None:
    store.commit(graph(*(node(key) for key in range(1, 8))))
    with pytest.raises(StoreError):
        store.commit(Changes(retried=revived, outcomes=[completed(1)]))
    assert store.outcome(1) is None


def test_the_latest_rebind_says_by_which_code_a_node_is_run(store: Store) -> None:
    store.commit(graph(node(1), node(2), node(3)))
    store.commit(Changes(functions=[FunctionRow(2, RICH), FunctionRow(3, PLAIN)], rebound=[ReboundRow(1, 2)]))
    store.commit(Changes(rebound=[ReboundRow(1, 3), ReboundRow(2, 2), ReboundRow(3, 2)], outcomes=[failed(3)]))
    restart(store)
    live = store.live()
    assert live.rebound == {1: 3, 2: 2}
    assert live.nodes == [LiveNode(1, 1, 1, b""), LiveNode(2, 1, 1, b"")], "what they were made as stays"
    assert store.failed([3]).rebound == {3: 2}


def test_what_allows_other_code_is_kept_as_long_as_a_node_names_it(store: Store) -> None:
    one, two = RebindingRow(1, b"signed once"), RebindingRow(2, b"signed twice")
    store.commit(graph(node(1), node(2), node(3)))
    rows = [ReboundRow(1, 2, 1), ReboundRow(2, 2, 1), ReboundRow(3, 2, 1)]
    store.commit(Changes(functions=[FunctionRow(2, RICH)], rebindings=[one], rebound=rows))
    store.commit(Changes(rebindings=[two], rebound=[ReboundRow(2, 1, 2)], outcomes=[failed(3)]))
    restart(store)
    live = store.live()
    assert (live.rebound, live.rebindings, live.next_rebinding) == ({1: 2, 2: 1}, {1: one, 2: two}, 3)
    assert store.failed([3]).rebindings == {3: one}
    store.commit(Changes(rebound=[ReboundRow(1, 1), ReboundRow(3, 2, 2)]))  # the first has its own code again
    restart(store)
    live = store.live()
    assert (live.rebindings, live.next_rebinding) == ({2: two}, 3)
    assert store.failed([3]).rebindings == {3: two}
    store.commit(Changes(rebindings=[RebindingRow(1, b"its number may be used again")], rebound=[ReboundRow(1, 2, 1)]))
    assert store.live().rebindings[1].signed == b"its number may be used again"


def test_what_allows_other_code_goes_with_the_last_node_that_it_is_for(store: Store) -> None:
    rebindings = [RebindingRow(1, b"for both"), RebindingRow(2, b"for one")]
    store.commit(graph(node(1), node(2)))
    store.commit(graph(node(3, instance=2), instance=2, origin=b"other-origin"))
    store.commit(
        Changes(rebindings=rebindings, rebound=[ReboundRow(1, 1, 2), ReboundRow(2, 1, 1), ReboundRow(3, 1, 1)])
    )
    store.commit(Changes(outcomes=[completed(1), completed(2)], instance_ends=[InstanceEnd(1, 5.0, False)]))
    store.commit(Changes(removed=[RemovedRow(1, instance_row(1).id, 5.0, False, 1.0)]))
    while store.sweep(1):
        pass
    restart(store)
    live = store.live()
    assert (live.rebindings, live.next_rebinding) == ({3: rebindings[0]}, 2)


def test_a_run_of_an_origin_is_told_once_however_many_of_its_nodes_failed(store: Store) -> None:
    store.commit(graph(node(1), node(2)))
    store.commit(Changes(blocks=[run_row(2, 3, 3)], nodes=[node(3), node(4), node(5)]))
    store.commit(Changes(outcomes=[failed(1), failed(3), failed(5)]))
    assert store.failed([1, 3, 5]).blocks == [run_row(0, 2, 1), run_row(2, 3, 3)]
    assert {run.origin for run in store.failed([3]).blocks} == {ORIGIN}


def test_what_failed_in_an_instance_that_was_removed_does_not_go_on(store: Store) -> None:
    store.commit(graph(node(1)))
    store.commit(graph(node(2, instance=2), instance=2, origin=b"other-origin"))
    store.commit(Changes(outcomes=[completed(1, 2, state=State.RESOLVING), failed(2)], rebound=[ReboundRow(1, 1)]))
    ends = [InstanceEnd(1, 5.0, True), InstanceEnd(2, 5.0, True)]
    store.commit(Changes(resolved=[ResolvedRow(1, FAILED, 2, 5.0)], instance_ends=ends))
    store.commit(Changes(removed=[RemovedRow(1, instance_row(1).id, 5.0, True, 1.0)]))
    assert [row.key for row in store.failed([2]).nodes] == [2]
    while store.sweep(100):
        pass
    restart(store)
    assert [row.key for row in store.failed([2]).nodes] == [2]
    assert store.failed([1]).rebound == {}


# --- downstream -----------------------------------------------------------------------------------------


def used_a_failure(store: Store) -> None:
    """Node 2 completed with the failure of 1 as a value, 3 and 4 named 2 before and after it had completed, and 5 was
    given the value of 2."""
    store.commit(graph(node(1), node(2, -1), node(3), node(4), node(5, 2)))
    store.commit(Changes(outcomes=[failed(1), completed(3, 2, state=State.RESOLVING), completed(2)]))
    store.commit(Changes(
        outcomes=[completed(4, 2), completed(5)], resolved=[ResolvedRow(3, int(State.COMPLETED), 0, 1700000003.5)],
        instance_ends=[InstanceEnd(1, 1700000003.5, True)],
    ))  # fmt: skip


def test_what_depends_on_what_is_told_page_by_page(store: Store) -> None:
    used_a_failure(store)
    store.commit(Changes(blocks=[run_row(5, 2, 6)], nodes=[node(6), node(7, 6)]))
    done = int(State.COMPLETED)
    edges = [
        Edges(2, keys(-1), b"", done), Edges(3, b"", keys(2), done), Edges(4, b"", keys(2), done),
        Edges(5, keys(2), b"", done), Edges(7, keys(6), b"", None),
    ]  # fmt: skip
    assert store.edges(1, 0, 10, False) == EdgesPage(edges, 0)
    assert store.edges(1, 0, 3, False) == EdgesPage(edges[:2], 3)
    assert store.edges(1, 3, 3, False) == EdgesPage(edges[2:4], 6)
    assert store.edges(1, 6, 3, False) == EdgesPage(edges[4:], 0)
    assert store.edges(1, 0, 10, True) == EdgesPage(edges[:1], 0)
    assert store.edges(9, 0, 10, False) == EdgesPage([], 0)


def test_a_key_of_many_bits_is_not_taken_for_a_tolerated_one(store: Store) -> None:
    large = 0xFFFFFF
    store.commit(graph(node(large), node(large + 1, large)))
    assert store.edges(1, 0, 1 << 30, True).edges == []


def test_what_runs_again_has_no_outcome_and_what_named_it_keeps_its_value(store: Store) -> None:
    used_a_failure(store)
    revived = [RetriedRow(1, WAITING), RetriedRow(2, WAITING), RetriedRow(5, WAITING)]
    revived += [RetriedRow(3, RESOLVING), RetriedRow(4, RESOLVING)]
    store.commit(Changes(retried=revived, instance_ends=[InstanceEnd(1, None, False)]))
    restart(store)
    live = store.live()
    assert [row.key for row in live.nodes] == [1, 2, 3, 4, 5]
    assert [(row.key, row.state, row.refs) for row in live.ended] == [(3, RESOLVING, keys(2)), (4, RESOLVING, keys(2))]
    assert store.values([3, 4]) == {3: b"value of 3", 4: b"value of 4"}
    store.commit(Changes(outcomes=[completed(1), completed(2), completed(5)], resolved=[
        ResolvedRow(3, int(State.COMPLETED), 0, 1700000009.5), ResolvedRow(4, int(State.COMPLETED), 0, 1700000009.5),
    ]))  # fmt: skip
    assert [store.outcome(key).state for key in range(1, 6)] == [State.COMPLETED] * 5  # type: ignore[union-attr]


def test_a_node_that_returned_promises_may_drop_them_and_run_again(store: Store) -> None:
    used_a_failure(store)
    store.commit(Changes(retried=[RetriedRow(3, WAITING)], instance_ends=[InstanceEnd(1, None, True)]))
    assert store.outcome(3) is None
    store.commit(Changes(outcomes=[completed(3, 2, state=State.RESOLVING)]))
    assert store.find([node_id(2)])[node_id(2)].ended is None


def test_completed_nodes_are_told_among_those_that_failed_with_what_they_have_made(store: Store) -> None:
    used_a_failure(store)
    by_two = run_row(5, 1, 6)._replace(creator=2)
    by_six, by_five = run_row(6, 1, 7)._replace(creator=6), run_row(7, 1, 8)._replace(creator=5)
    eager_attempt = EagerAttemptRow(77, 6, 0, int(EagerState.COMMITTED))
    store.commit(Changes(
        blocks=[by_two, by_six, by_five], nodes=[node(6), node(7), node(8)], eager_attempts=[eager_attempt],
        eager_blocks=[EagerBlockRow(7, 77)], outcomes=[failed(6), completed(7), completed(8)],
    ))  # fmt: skip
    restart(store)
    found = store.failed([1], {1, 2, 4, 8}, {2})
    done = int(State.COMPLETED)
    assert found.nodes == [
        FailedNode(1, 1, 1, b"", 1, None, b"failure of 1"),
        FailedNode(2, 1, 1, keys(-1), 0, None, None, done, (1 << 40) + 2),
        FailedNode(4, 1, 1, b"", 0, keys(2), None, done),
        FailedNode(8, 1, 1, b"", 0, b"", None, done),
    ]
    assert found.made == [CreatedBlock(by_two, 2, None), CreatedBlock(by_six, 2, eager_attempt)]
    assert found.others == set(), "what is about to be of a dead attempt is no failure of the instance"
    assert store.failed([1]).others == {1}


def test_a_failure_of_a_dead_attempt_is_none_of_its_instance(store: Store) -> None:
    used_a_failure(store)
    store.commit(
        Changes(
            blocks=[run_row(5, 1, 6)],
            nodes=[node(6)],
            outcomes=[failed(6)],
            eager_attempts=[EagerAttemptRow(7, 2, 0, int(EagerState.ABORTED))],
            eager_blocks=[EagerBlockRow(6, 7)],
        )
    )
    assert store.failed([1]).others == set()


def test_what_a_dead_attempt_has_made_does_not_go_on_with_its_root_cause(store: Store) -> None:
    used_a_failure(store)
    store.commit(Changes(
        blocks=[run_row(5, 1, 6)], nodes=[node(6, 1)], outcomes=[failed(6, root_cause=1)],
        eager_attempts=[EagerAttemptRow(7, 2, 0, int(EagerState.ABORTED))], eager_blocks=[EagerBlockRow(6, 7)],
    ))  # fmt: skip
    assert [row.key for row in store.failed([1]).nodes] == [1]


def test_what_has_used_a_failure_is_told_until_it_runs_again(store: Store) -> None:
    used_a_failure(store)
    store.commit(Changes(used_failures=[UsedFailureRow(2, 1)]))
    store.commit(Changes(used_failures=[UsedFailureRow(2, 1)]))
    restart(store)
    assert (store.used_failures(1), store.used_failures(2)) == ([2], [])
    assert [row.used_failure for row in store.described([1, 2]).values()] == [False, True]
    store.commit(Changes(retried=[RetriedRow(2, WAITING)], instance_ends=[InstanceEnd(1, None, True)]))
    assert store.used_failures(1) == []


def test_the_record_of_a_used_failure_goes_with_its_instance(store: Store) -> None:
    used_a_failure(store)
    store.commit(Changes(used_failures=[UsedFailureRow(2, 1)]))
    store.commit(Changes(removed=[RemovedRow(1, instance_row(1).id, 1700000003.5, True, 1.0)]))
    while store.sweep(100):
        pass
    assert store.used_failures(1) == []
