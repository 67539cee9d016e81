"""What every store does with failure hooks: they are replaced by instance, kept over restarts, and removed with it."""

from __future__ import annotations

import pytest

from dagorama_broker.model.domain import Function, Rate, RetryPolicy, SharedLimit, WireProtocol
from dagorama_broker.model.hooks import Hook, HookRow
from dagorama_broker.model.rows import Changes, InstanceEnd, RemovedRow
from dagorama_broker.model.schedules import packed_function, unpacked_function, unpacked_hook
from dagorama_broker.store import Store
from tests.support.records import completed, failed, graph, instance_row, node, restart

FUNCTION = Function("work:Report.tell", "hash", "mail", retry=RetryPolicy(3, 1.5), timeout=60.0, key_id="0f")
PACKED = packed_function(FUNCTION)


def hooked(store: Store, key: int) -> HookRow:
    """Commit an instance of one node with a hook."""
    changes = graph(node(key, instance=key), instance=key, origin=b"origin-%05d" % key)
    changes.instances = [instance_row(key)]
    row = HookRow(key, PACKED, b"\1\1arguments")
    changes.hooks = [row]
    store.commit(changes)
    return row


def test_hooks_of_unfinished_instances_are_there_after_a_restart(store: Store) -> None:
    one, other = hooked(store, 1), hooked(store, 2)
    store.commit(Changes(outcomes=[completed(2)], instance_ends=[InstanceEnd(2, 5.5, False)]))
    restart(store)
    assert store.live().hooks == {1: one}
    assert store.hooks([1, 2, 3]) == {1: one, 2: other}
    assert store.hooks([]) == {}


def test_a_later_row_replaces_an_earlier_one_also_in_one_commit(store: Store) -> None:
    row = hooked(store, 1)
    store.commit(Changes(hooks=[row.noting(b"failure"), row.silenced()]))
    restart(store)
    assert store.live().hooks == {1: row._replace(is_deaf=1)}
    store.commit(Changes(hooks=[row.noting(b"another")]))
    assert store.hooks([1]) == {1: row._replace(failure=b"another")}


def test_what_a_retry_reads_has_the_hook(store: Store) -> None:
    row = hooked(store, 1).silenced()
    ends = [InstanceEnd(1, 5.5, True)]
    store.commit(Changes(outcomes=[failed(1)], instance_ends=ends, hooks=[row]))
    (stored,) = store.failed([1]).instances
    assert stored.hook == row


def test_a_hook_is_removed_with_its_instance(store: Store) -> None:
    hooked(store, 1)
    kept = hooked(store, 2)
    store.commit(Changes(outcomes=[completed(1)], instance_ends=[InstanceEnd(1, 5.5, False)]))
    store.commit(Changes(removed=[RemovedRow(1, instance_row(1).id, 5.5, False, 60.0)]))
    restart(store)
    assert store.hooks([1, 2]) == {2: kept}


@pytest.mark.parametrize(
    "function",
    [
        FUNCTION,
        Function("f", "", "q", protocol=WireProtocol.V1, is_async=True),
        Function("f", "", "q", rate=Rate(10, 60.0), rate_by_key=True, limit=SharedLimit("mail", Rate(3, 1.0), 2)),
    ],
)
def test_a_function_is_packed_as_a_whole_with_a_hook_and_without(function: Function) -> None:
    hook = Hook(PACKED, b"\1\1\xff arguments")
    for packed in (packed_function(function), packed_function(function, hook)):
        found = unpacked_function(packed)
        assert found == function
        assert hash(found) == hash(function)
    assert unpacked_hook(packed_function(function)) is None
    assert unpacked_hook(packed_function(function, hook)) == hook
