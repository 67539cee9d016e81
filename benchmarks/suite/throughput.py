"""How much gets done: a wide fan, chains, many small graphs. The clock runs from the call to the value in hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from statistics import median
from time import perf_counter
from typing import TypeAlias

from dagorama import DAGInstance, DAGPromise, batch, resolve, resolve_all
from dagorama.client.connection import connection
from dagorama.client.progress import Watch
from suite.graphs import Chain, Fan, HopByHop, Small
from suite.newer_graphs import CachedFan, RatedFan
from suite.serving import Serving, nodes_of, promise_of, serving
from suite.table import Row, row

Made: TypeAlias = "tuple[DAGInstance, DAGPromise[int]]"

CALLERS = 16
FAN_REACH = {20_000: "30,000, aim at 45,000"}
WATCHERS = 20
CHECKED = 100  #: nodes that are read back after the broker was killed


def fan(widths: dict[int, int], chance: random.Random) -> Iterator[Row]:
    """`widths` has how often each is run. After each run of the largest the broker is killed and asked for nodes."""
    seconds: dict[int, list[float]] = {}
    for width, runs in widths.items():
        with serving() as served:
            seconds[width] = [one_fan(served, width, chance) for _ in range(runs)]
        rates = [(width + 2) / each for each in seconds[width]]
        yield row(f"fan, {width:,} nodes", rates, "nodes/s", FAN_REACH.get(width, ""), note=_read_back(width))
    if {20_000, 100_000} <= seconds.keys():
        shorter, longer = seconds[20_000], seconds[100_000]
        ratios = [sorted(longer)[len(longer) // 2] / sorted(shorter)[len(shorter) // 2]]
        yield row("fan, 100,000 : 20,000", ratios, "times as long", "5.5 at most")


def _read_back(width: int) -> str:
    return f"{CHECKED} of them read back after a SIGKILL of the broker, each run"


def one_fan(served: Serving, width: int, chance: random.Random) -> float:
    """Return the seconds of a fan. The broker is killed afterwards, and has to know its nodes."""
    start = perf_counter()
    instance, promise = Fan()(width)
    total = resolve(instance, promise, timeout=300)
    seconds = perf_counter() - start
    served.broker.kill()
    assert total == sum(range(width))
    served.broker.start()
    # The entry node is the first, the sum the last that was made.
    nodes = nodes_of(instance)
    assert len(nodes) == width + 2
    for place in chance.sample(range(width), min(width, CHECKED)):
        assert resolve(instance, promise_of(nodes[1 + place]), timeout=60) == place
    resolve(*Fan()(16), timeout=60)  # workers are back
    return seconds


def rated(width: int, runs: int) -> Iterator[Row]:
    """Measure the fan without a rate and with one that is never reached, in turns."""
    rates: dict[type[Fan], list[float]] = {Fan: [], RatedFan: []}
    with serving():
        for kind in [Fan, RatedFan] * runs:
            start = perf_counter()
            assert resolve(*kind()(width), timeout=300) == sum(range(width))
            rates[kind].append((width + 2) / (perf_counter() - start))
    ratio = median([limited / plain for plain, limited in zip(rates[Fan], rates[RatedFan], strict=True)])
    note = f"{ratio:.3f} of the run before without a rate"
    yield row(f"fan, {width:,} nodes with a rate", rates[RatedFan], "nodes/s", "0.9 of it without", note=note)


def watched(width: int, runs: int) -> Iterator[Row]:
    """Measure the fan alone and while watchers in another process follow it, in turns."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    with serving(), ProcessPoolExecutor(1, get_context("spawn")) as other:
        other.submit(int).result()  # its process is there
        for is_watched in [False, True] * runs:
            start = perf_counter()
            instance, promise = Fan()(width)
            watching = other.submit(_follow, instance.instance_id.bytes) if is_watched else None
            assert resolve(instance, promise, timeout=300) == sum(range(width))
            rates[is_watched].append((width + 2) / (perf_counter() - start))
            assert watching is None or watching.result() == [width + 2] * WATCHERS
        ratio = median([seen / alone for alone, seen in zip(rates[False], rates[True], strict=True)])
    note = f"{ratio:.3f} of the run before without watchers"
    yield row(f"fan, {width:,} nodes, watched by {WATCHERS}", rates[True], "nodes/s", "0.97 of it unwatched", note=note)


def _follow(instance: bytes) -> list[int]:
    """Watch an instance several times until it has ended; return the last number of completed nodes that each saw."""
    with ThreadPoolExecutor(WATCHERS) as threads:
        return list(threads.map(_last_count, [instance] * WATCHERS))


def _last_count(instance: bytes) -> int:
    *_, last = Watch(connection(), instance)
    return last.done


def hits(served: Serving, width: int, runs: int) -> Iterator[Row]:
    """Each run asks for the same values, which the first one has computed."""
    seconds = [_one_cached(width) for _ in range(runs + 1)]
    rates = [(width + 2) / each for each in seconds[1:]]
    note = f"each of another node; {(width + 2) / seconds[0]:,.0f} nodes/s when they are computed"
    yield row(f"fan, {width:,} cache hits", rates, "nodes/s", "5,000", note=note)


def _one_cached(width: int) -> float:
    start = perf_counter()
    assert resolve(*CachedFan()(width), timeout=300) == sum(range(width))
    return perf_counter() - start


def chain(served: Serving, lengths: dict[int, int]) -> Iterator[Row]:
    for length, runs in lengths.items():
        hops = [_one_chain(Chain(), length) for _ in range(runs)]
        yield row(f"chain, {length:,} nodes", hops, "ms a hop", "0.2", "dependents go along with their source")
    hops = [_one_chain(HopByHop(), 200) for _ in range(3)]
    yield row("chain, 200 nodes, one by one", hops, "ms a hop", "1.0", "max_concurrency=1: none goes along")


def _one_chain(definition: Chain, length: int) -> float:
    start = perf_counter()
    assert resolve(*definition(length), timeout=300) == length
    return (perf_counter() - start) * 1000 / length


def many(served: Serving, instances: int, runs: int) -> Iterator[Row]:
    """All are submitted before the first is asked for."""
    for callers in (1, CALLERS):
        one_by_one = [_many(instances, partial(_one_by_one, callers=callers)) for _ in range(runs)]
        by = f"one by one by {callers} callers" if callers > 1 else "one by one by one caller"
        yield row(f"many, submitted {by}", [rate for rate, _ in one_by_one], "instances/s", "1,200")
        yield row(f"many {by}, the first is there after", [first for _, first in one_by_one], "s")
    gathered = [_many(instances, _together) for _ in range(runs)]
    yield row("many, submitted together", [rate for rate, _ in gathered], "instances/s", "3,000")
    yield row("many together, the first is there after", [first for _, first in gathered], "s")


def by_callers(instances: int, callers: int) -> float:
    """Return the instances a second that some threads submit, one by one."""
    rate, _ = _many(instances, partial(_one_by_one, callers=callers))
    return rate


def _one_by_one(instances: int, callers: int) -> list[Made]:
    """Each by a call of its own, which returns when it is durable; `callers` threads at a time."""
    if callers == 1:
        return [Small()(number) for number in range(instances)]
    with ThreadPoolExecutor(callers) as threads:
        return list(threads.map(lambda number: Small()(number), range(instances)))


def _together(instances: int) -> list[Made]:
    with batch():
        return [Small()(number) for number in range(instances)]


def _many(instances: int, submit: Callable[[int], list[Made]]) -> tuple[float, float]:
    """Instances a second, and seconds from the first call until its instance's value is there."""
    start = perf_counter()
    made = submit(instances)
    resolve(*made[0], timeout=120)
    first = perf_counter() - start
    values = resolve_all(made, timeout=120)
    seconds = perf_counter() - start
    assert values == [sum((number + offset) ** 2 for offset in range(4)) for number in range(instances)]
    return instances / seconds, first
