"""Arguments of nodes that were made together are one block of bytes, and each is found until it is dropped."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dagorama_broker.engine.argument_cache import LARGEST, LEAST, MOST_BYTES, ArgumentCache
from dagorama_broker.model.rows import NodeRow


def arguments_of(key: int) -> bytes:
    return f"arguments of {key}".encode() * (1 + key % 3)


def rows(keys: Sequence[int]) -> list[NodeRow]:
    return [NodeRow(key, 1, 1, b"", arguments_of(key)) for key in keys]


class Stored:
    """A store of arguments that notes which keys were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def read(self, keys: Sequence[int]) -> dict[int, bytes]:
        self.asked += keys
        return {key: arguments_of(key) for key in keys}


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.fixture
def cache(stored: Stored) -> ArgumentCache:
    return ArgumentCache(1 << 20, stored.read)


@pytest.mark.parametrize("count", [1, LEAST - 1, LEAST, LARGEST, 3 * LARGEST + 1])
async def test_all_are_found_without_the_store(cache: ArgumentCache, stored: Stored, count: int) -> None:
    keys = range(10, 10 + count)
    cache.keep_rows(rows(keys), keys)
    assert await cache.get(keys) == {key: arguments_of(key) for key in keys}
    assert not stored.asked
    assert 9 not in cache
    assert 10 + count not in cache


async def test_what_is_dropped_or_was_left_out_is_read_back(cache: ArgumentCache, stored: Stored) -> None:
    keys, unfinished = range(100), set(range(100)) - {5, 50}
    cache.keep_rows(rows(keys), unfinished)
    cache.drop(20)
    assert await cache.get([4, 5, 20, 50, 51]) == {key: arguments_of(key) for key in (4, 5, 20, 50, 51)}
    assert stored.asked == [5, 20, 50]


def test_memory_is_given_back_with_the_last_of_a_pack(cache: ArgumentCache) -> None:
    keys = range(3 * LARGEST)
    cache.keep_rows(rows(keys), keys)
    full = cache.size
    assert full == sum(len(arguments_of(key)) for key in keys)
    for key in keys[: LARGEST - 1]:
        cache.drop(key)
        cache.drop(key)  # a node that ended, was retried, and has ended again
    assert cache.size == full
    cache.drop(LARGEST - 1)
    assert cache.size == full - sum(len(arguments_of(key)) for key in keys[:LARGEST])
    for key in keys:
        cache.drop(key)
    assert not cache.size


def test_earlier_keys_may_come_later(cache: ArgumentCache) -> None:
    # A large call has reserved keys that it uses after others have used later ones.
    for keys in (range(5_000, 5_020), range(100, 120), range(9_000, 9_002), range(300, 320)):
        cache.keep_rows(rows(keys), keys)
    for keys in (range(100, 120), range(300, 320), range(5_000, 5_020), range(9_000, 9_002)):
        assert [cache.find(key) for key in keys] == [arguments_of(key) for key in keys]
    assert all(key not in cache for key in (99, 120, 299, 320, 4_999, 5_020))


def test_what_does_not_fit_is_not_kept(stored: Stored) -> None:
    cache = ArgumentCache(MOST_BYTES, stored.read)
    large = [NodeRow(key, 1, 1, b"", bytes(MOST_BYTES // 2)) for key in range(3)]
    cache.keep_rows(large, range(3))
    assert [key in cache for key in range(3)] == [True, True, False]
    small = range(10, 30)
    cache.keep_rows(rows(small), small)
    assert not any(key in cache for key in small)
