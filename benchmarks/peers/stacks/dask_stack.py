"""Dask: distributed's scheduler and two worker processes with a thread each.

As its documentation recommends: futures without keys of their contents (`pure=False`), large arguments scattered to the
workers instead of in the graph, many graphs in one call of `compute`. `worker-saturation` is unlimited: workers get
short tasks before they ask. The scheduler keeps everything in memory.
"""

from __future__ import annotations

from typing import Self

import dask
import distributed
from distributed import Client, Future, LocalCluster

from peers import functions
from peers.functions import Summary
from peers.parts import Pipeline, by_callers


class Dask:
    def __enter__(self) -> Self:
        dask.config.set({"distributed.scheduler.worker-saturation": "inf"})
        self._cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
        self._client = Client(self._cluster)
        return self

    def __exit__(self, *raised: object) -> None:
        self._client.close()
        self._cluster.close()

    def version(self) -> str:
        return f"Dask {distributed.__version__}"

    def _call(self, function: object, *arguments: object) -> Future:
        return self._client.submit(function, *arguments, pure=False)

    def one(self, number: int) -> int:
        return self._call(functions.nothing, number).result()

    def fan(self, width: int) -> int:
        return self._call(functions.total, self._client.map(functions.nothing, range(width), pure=False)).result()

    def chain(self, length: int) -> int:
        value = self._call(functions.step, 0)
        for _ in range(length - 1):
            value = self._call(functions.step, value)
        return value.result()

    hop = chain

    def _small(self, number: int) -> Future:
        return self._call(functions.total, [self._call(functions.square, number + offset) for offset in range(4)])

    def small(self, instances: int, callers: int) -> list[int]:
        return self._client.gather(by_callers(self._small, instances, callers))

    def together(self, instances: int) -> list[int]:
        square, total = dask.delayed(functions.square), dask.delayed(functions.total)
        graphs = [total([square(number + offset) for offset in range(4)]) for number in range(instances)]
        return self._client.gather(self._client.compute(graphs))

    def turn(self, blocks: list[bytes]) -> list[bytes]:
        scattered = self._client.scatter(blocks, hash=False, direct=True)
        return self._client.gather([self._call(functions.turned, block) for block in scattered], direct=True)

    def pipeline(self, wanted: Pipeline) -> Summary:
        block = self._call(functions.begin, wanted.pattern, wanted.size)
        for number in range(wanted.handed):
            block = self._call(functions.hand_on, block, number)
        return self._call(functions.summary, block, wanted.handed).result()
