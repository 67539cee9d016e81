"""Dagorama as users get it: a broker on SQLite with a sync at each commit, signed values, and two workers."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from suite.graphs import Blocks, Chain, Fan, HopByHop, One, Small

from dagorama import DAGDefinition, DAGInstance, DAGPromise, batch, dagorama, launch_workers, resolve, resolve_all
from dagorama_broker.launch import launch_broker
from peers import functions
from peers.functions import Summary
from peers.parts import Pipeline, by_callers

WAIT = 120  #: seconds for a value


class Handing(DAGDefinition):
    """A block of megabytes that nodes hand on."""

    def entrypoint(self, pattern: bytes, size: int, handed: int) -> Summary:
        block = self.begin(pattern, size)
        for number in range(handed):
            block = self.hand_on(block, number)
        return self.summary(block, handed)

    @dagorama().syncfn
    def begin(self, pattern: bytes, size: int) -> bytes:
        return functions.begin(pattern, size)

    @dagorama().syncfn
    def hand_on(self, block: bytes, number: int) -> bytes:
        return functions.hand_on(block, number)

    @dagorama().syncfn
    def summary(self, block: bytes, handed: int) -> Summary:
        return functions.summary(block, handed)


class Ours:
    """Broker and workers are processes of this program."""

    def __enter__(self) -> Self:
        self._open = ExitStack()
        folder = self._open.enter_context(TemporaryDirectory(prefix="dagorama-bench-"))
        self._open.enter_context(launch_broker(port=0, store=f"sqlite:///{Path(folder, 'broker.sqlite3')}"))
        self._open.enter_context(launch_workers(2))
        return self

    def __exit__(self, *raised: object) -> None:
        self._open.close()

    def version(self) -> str:
        from dagorama_broker.rpc.overview import version

        return f"dagorama {version()}"

    def one(self, number: int) -> int:
        return resolve(*One()(number), timeout=WAIT)

    def fan(self, width: int) -> int:
        return resolve(*Fan()(width), timeout=WAIT)

    def chain(self, length: int) -> int:
        return resolve(*Chain()(length), timeout=WAIT)

    def hop(self, length: int) -> int:
        return resolve(*HopByHop()(length), timeout=WAIT)

    def small(self, instances: int, callers: int) -> list[int]:
        """Submit each by a call of its own, which returns when it is durable."""
        return resolve_all(by_callers(_small, instances, callers), timeout=WAIT)

    def together(self, instances: int) -> list[int]:
        with batch():
            made = [_small(number) for number in range(instances)]
        return resolve_all(made, timeout=WAIT)

    def turn(self, blocks: list[bytes]) -> list[bytes]:
        instance, _ = Blocks()()
        promises = [instance.turned(block) for block in blocks]
        return resolve_all([(instance, promise) for promise in promises], timeout=WAIT)

    def pipeline(self, wanted: Pipeline) -> Summary:
        return resolve(*Handing()(wanted.pattern, wanted.size, wanted.handed), timeout=WAIT)


def _small(number: int) -> tuple[DAGInstance, DAGPromise[int]]:
    return Small()(number)
