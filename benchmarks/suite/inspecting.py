"""How long a person waits for what is told of a large graph: the errors of its nodes, and its functions with edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter

from dagorama import watch
from dagorama.client.connection import connection
from suite.graphs import Failing
from suite.serving import serving
from suite.table import Row, row


def inspecting(width: int, runs: int) -> Iterator[Row]:
    """Measure calls of `dagorama failures` and `dagorama graph` about a fan whose nodes have all failed."""
    with serving(DAGORAMA_LOG_LEVEL="CRITICAL"):  # a worker logs each failure
        instance, _ = Failing()(width)
        *_, ended = watch(instance)
        assert ended.failed == width + 2
        id = instance.instance_id.bytes
        (group,) = connection().list_failures(id).groups
        assert (group.nodes, group.downstream) == (width, 2)
        yield row(
            f"failures of {width:,} nodes grouped",
            _milliseconds(lambda: connection().list_failures(id), runs),
            "ms",
            "100",
        )
        yield row(
            f"graph of {width:,} nodes by function", _milliseconds(lambda: connection().get_shape(id), runs), "ms"
        )


def _milliseconds(call: Callable[[], object], runs: int) -> list[float]:
    found = []
    for _ in range(runs):
        start = perf_counter()
        call()
        found.append((perf_counter() - start) * 1000)
    return found
