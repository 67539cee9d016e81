"""Nodes as columns: all stores give the same ones, however the blocks of several instances interleave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import State
from dagorama_broker.model.maps import LAST_KEY, NO_OUTCOME
from dagorama_broker.model.rows import Changes, FunctionRow, InstanceEnd, ProgressRow, ResolvedRow
from dagorama_broker.store import Store, open_store
from tests.support.records import PLAIN, RICH, begun, completed, failed, instance_row, node, run_row

INSTANCES = (1, 2, 3)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """Both stores, with the same records."""
    stores = open_store("memory://"), open_store(f"sqlite:///{tmp_path}/broker.sqlite3")
    for each in stores:
        begun(each)
        for changes in history(Random(7)):
            each.commit(changes)
    yield stores
    for each in stores:
        each.close()


def history(chance: Random) -> list[Changes]:
    """Nodes of three instances in blocks that take turns, some of which have ended, failed, or returned promises."""
    made, ended = Changes(functions=[FunctionRow(1, PLAIN), FunctionRow(2, RICH)]), Changes()
    made.instances = [instance_row(key) for key in INSTANCES]
    key = 1
    earlier: dict[int, list[int]] = {instance: [] for instance in INSTANCES}
    for number in range(60):
        instance, size = chance.choice(INSTANCES), chance.randint(1, 5)
        block = run_row(0, size, key, instance, b"origin-%05d" % number)
        made.blocks.append(block._replace(creator=chance.choice([0, *earlier[instance]])))
        for each in range(key, key + size):
            sources = chance.sample(earlier[instance], min(len(earlier[instance]), chance.randint(0, 3)))
            signs = [chance.choice((1, -1)) * source for source in sources]
            made.nodes.append(node(each, *signs, instance=instance, function=chance.choice((1, 2))))
            earlier[instance].append(each)
        key += size
    for each in range(1, key):
        _end(ended, each, chance.randrange(6))
    ended.instance_ends = [InstanceEnd(1, None, True)]
    return [made, ended]


def _end(changes: Changes, key: int, fate: int) -> None:
    if fate == 0:
        changes.outcomes.append(completed(key))
    elif fate == 1:
        changes.outcomes.append(failed(key))
        changes.progress.append(ProgressRow(key, key % 3, 0, 0, 0.0, None))
    elif fate in (2, 3):
        changes.outcomes.append(completed(key, 1, state=State.RESOLVING))
        if fate == 3:
            changes.resolved.append(ResolvedRow(key, int(State.COMPLETED), 0, 1700000003.123457))
    elif fate == 4:
        changes.progress.append(ProgressRow(key, 2, 0, 0, 1700000009.5, b"why"))


def test_all_stores_give_the_same_columns(both: tuple[Store, Store]) -> None:
    memory, file = (store.view for store in both)
    for instance in INSTANCES:
        keys = memory.node_keys(instance, 0, 999)
        for first, last in ((keys[0], keys[-1]), (keys[3], keys[3]), (keys[5], keys[-4]), (keys[1], LAST_KEY)):
            columns = file.node_columns(instance, first, last)
            assert columns == memory.node_columns(instance, first, last)
            assert len(columns.states) == sum(first <= key <= last for key in keys)
            sources = file.node_sources(instance, first, last)
            assert sources == memory.node_sources(instance, first, last)
            assert len(sources) == sum(columns.source_counts)
        whole = file.node_columns(instance, keys[0], keys[-1])
        assert set(whole.states) == {State.RESOLVING, State.COMPLETED, State.FAILED, NO_OUTCOME}
        assert {bool(ended) for ended in whole.ended} == {True, False}
        assert 1700000003_123457 in whole.ended
        assert {0, 1700000001_250000} == set(whole.returned)


@pytest.mark.parametrize("limit", [1, 2, 7, 999])
def test_blocks_are_read_page_by_page(both: tuple[Store, Store], limit: int) -> None:
    memory, file = (store.view for store in both)
    for instance in INSTANCES:
        keys, found = memory.node_keys(instance, 0, 999), list[int]()
        while True:
            after = found[-1] if found else 0
            page = file.map_blocks(instance, after, limit)
            assert page == memory.map_blocks(instance, after, limit)
            assert file.count_up_to(instance, after) == memory.count_up_to(instance, after) == len(found)
            if not page.keys:
                break
            assert len(page.keys) == min(limit, len(keys) - len(found))
            found += page.keys
        assert found == keys
        assert file.size_of(instance) == memory.size_of(instance) == len(keys)


def test_nodes_that_are_not_there_are_an_error(both: tuple[Store, Store]) -> None:
    with pytest.raises(StoreError, match="table nodes is damaged: instance 99 has no nodes from 1 to 5"):
        both[1].view.node_columns(99, 1, 5)
    assert both[1].view.map_blocks(99, 0, 9).keys == []
    assert both[1].view.count_up_to(99, LAST_KEY) == 0
