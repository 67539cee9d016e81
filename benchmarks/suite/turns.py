"""How long others wait for a turn of the broker's loop while one call makes, or cancels, very many nodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import perf_counter, sleep

from dagorama.api import broker_pb2 as pb
from dagorama.client.connection import connection
from suite.standing import alone
from suite.table import Row, row, share

PART = 40_000  #: nodes of one message
BETWEEN = 0.005  #: seconds between an answer and the next question
AIM = "50 in 99 % of all"


def turns(nodes: int) -> Iterator[Row]:
    """Measure a call that needs no commit: the next turn of the loop answers it, so it takes as long as a turn."""
    instance = os.urandom(16)
    with alone(), ProcessPoolExecutor(1, get_context("spawn")) as other:
        other.submit(int).result()  # its process is there
        yield from _rows(f"{nodes:,} nodes are submitted", _waits(other, _submit, instance, nodes))
        yield from _rows(f"{nodes:,} nodes are cancelled", _waits(other, _cancel, instance, nodes))


def _waits(other: ProcessPoolExecutor, call: Callable[[bytes, int], None], instance: bytes, nodes: int) -> list[float]:
    """Milliseconds that each question took while the other process makes the call."""
    calling, waits = other.submit(call, instance, nodes), []
    while not calling.done():
        start = perf_counter()
        connection().stub.GetStatus(pb.GetStatusRequest(), timeout=60)
        waits.append((perf_counter() - start) * 1000)
        sleep(BETWEEN)
    calling.result()
    return waits


def _rows(what: str, waits: list[float]) -> Iterator[Row]:
    yield row(f"a turn while {what}, 99 %", [share(waits, 0.99)], "ms", AIM)
    yield row(f"a turn while {what}, longest", [max(waits)], "ms", note=f"of {len(waits):,}")


def _submit(instance: bytes, nodes: int) -> None:
    """Submit a chain in one call."""
    connection().stub.SubmitStream(_parts(instance, nodes), timeout=600)


def _parts(instance: bytes, nodes: int) -> Iterator[pb.SubmitRequest]:
    origin = os.urandom(12)
    for first in range(0, nodes, PART):
        counters = range(first, min(first + PART, nodes))
        run = pb.Nodes(
            instance=instance,
            origin=origin,
            first=first,
            function=[0] * len(counters),
            arguments=[b"\x01\x00" + bytes(40)] * len(counters),
            source_count=[int(counter > 0) for counter in counters],
            source=[c - 1 for c in counters if c],
        )
        if not first:
            run.creates.definition = "turns:Chain"
        yield pb.SubmitRequest(functions=[pb.Function(name="turns:Chain.step", hash="h")], nodes=[run])
    yield pb.SubmitRequest()


def _cancel(instance: bytes, nodes: int) -> None:
    reply = connection().stub.Cancel(pb.CancelRequest(instance=instance), timeout=600)
    assert reply.cancelled == nodes
