"""`dagorama cache` lists the cached values of functions, and forgets them; `dagorama show` tells whose value it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dagorama import Cache, DAGDefinition, dagorama, execute_worker, resolve
from tests.support.brokers import launch_broker
from tests.support.commands import data, printed

FUNCTION = f"{__name__}:Squares.entrypoint"


class Squares(DAGDefinition):
    @dagorama(cache=Cache())
    def entrypoint(self, number: int) -> int:
        return number * number


@pytest.fixture(autouse=True)
def broker() -> Iterator[None]:
    with launch_broker(port=0):
        yield


def test_values_are_listed_shown_and_forgotten() -> None:
    started = [Squares()(3), Squares()(3)]
    execute_worker(infinite_loop=False)
    assert [resolve(*each) for each in started] == [9, 9]
    (listed,) = data("cache", "list")["functions"]
    assert (listed["function"], listed["values"], listed["oldest"] == listed["newest"]) == (FUNCTION, 1, True)
    assert "since startup: 1 hits, 1 misses" in printed("cache", "list")
    (first, _), (second, _) = started
    assert f"value of node {first.instance_id.hex[:8]}/1, cached" in printed("show", second.instance_id, "/1")
    typed = FUNCTION.replace("Squares", "Squars")
    assert f"no function {typed!r} has cached values; did you mean {FUNCTION!r}?" in printed("cache", "clear", typed)
    assert data("cache", "clear", FUNCTION)["values"] == 1
    assert printed("cache", "clear", FUNCTION) == (
        f"0 values forgotten: no function {FUNCTION!r} has cached values; `dagorama cache list` shows which ones have\n"
    )
    assert data("cache", "list")["functions"] == []
