"""Values of megabytes: in and out of nodes, and one that many nodes read. Bytes count in plus out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from time import perf_counter

from dagorama import put, resolve
from suite.graphs import Blocks
from suite.serving import Serving
from suite.table import Row, row

MIB = 1 << 20


def values(served: Serving, runs: int, way: str, reach: str, blocks: int = 32, size: int = 4 * MIB) -> Iterator[Row]:
    """Each block is another one, so that nothing is stored already."""
    rates = [_turned(blocks, size) for _ in range(runs)]
    yield row(f"values, {blocks} of {size // MIB} MiB, {way}", rates, "MB/s", reach)


def _turned(count: int, size: int) -> float:
    blocks = [os.urandom(size) for _ in range(count)]
    start = perf_counter()
    instance, _ = Blocks()()
    promises = [instance.turned(block) for block in blocks]
    for block, promise in zip(blocks, promises, strict=True):
        assert resolve(instance, promise, timeout=120) == block[::-1]
    return 2 * count * size / (perf_counter() - start) / 1e6


def shared(served: Serving, runs: int, way: str, readers: int = 100, size: int = 64 * MIB) -> Iterator[Row]:
    seconds, stored = [], []
    for _ in range(runs):
        before = served.stored()
        seconds.append(_shared(readers, os.urandom(size)))
        stored.append((served.stored() - before) / MIB)
    yield row(f"values, one of {size // MIB} MiB given to {readers} nodes, {way}", seconds, "s")
    yield row("values, MiB stored for it", stored, "MiB", f"{size // MIB}, once")


def _shared(readers: int, block: bytes) -> float:
    start = perf_counter()
    kept = put(block)
    instance, _ = Blocks()()
    lengths = [instance.length(kept, number) for number in range(readers)]
    total = instance.total(lengths)
    assert resolve(instance, total, timeout=120) == readers * len(block) + sum(range(readers))
    return perf_counter() - start


def handed_on(runs: int, way: str, steps: int = 10, size: int = 64 * MIB) -> Iterator[Row]:
    """Measure a pipeline: each node turns the block of the one before and hands it on."""
    rates = [_handed_on(steps, os.urandom(size)) for _ in range(runs)]
    yield row(f"values, {steps} nodes that hand {size // MIB} MiB on, {way}", rates, "MB/s")


def _handed_on(steps: int, block: bytes) -> float:
    start = perf_counter()
    instance, _ = Blocks()()
    promise = instance.turned(block)
    for _ in range(steps - 1):
        promise = instance.turned(promise)
    found = resolve(instance, promise, timeout=600)
    assert found == (block if steps % 2 == 0 else block[::-1])
    # Each step reads and writes the block; the client writes it once and reads it once.
    return 2 * (steps + 1) * len(block) / (perf_counter() - start) / 1e6
