"""Dask: distributed's scheduler with two single-threaded worker processes, and as many tasks ahead as they come.

Its scheduler keeps everything in memory.
"""

from __future__ import annotations

import dask
from distributed import Client, LocalCluster
from measuring import (
    MIB,
    nothing,
    report_chain,
    report_fan,
    report_many,
    report_round_trip,
    report_values,
    square,
    step,
    total,
    turned,
)


def main() -> None:
    dask.config.set({"distributed.scheduler.worker-saturation": "inf"})
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):

        def fan(width: int) -> int:
            return client.submit(total, client.map(nothing, range(width), pure=False), pure=False).result()

        def chain(length: int) -> int:
            value = client.submit(step, 0, pure=False)
            for _ in range(length - 1):
                value = client.submit(step, value, pure=False)
            return value.result()

        def many(instances: int) -> list[int]:
            made = [
                client.submit(total, [client.submit(square, n + offset, pure=False) for offset in range(4)], pure=False)
                for n in range(instances)
            ]
            return client.gather(made)

        fan(64)
        report_fan(20_000, fan)
        report_chain(200, chain)
        report_round_trip(300, lambda number: client.submit(nothing, number, pure=False).result())
        report_many(1000, many)
        report_values(32, 4 * MIB, lambda blocks: client.gather([client.submit(turned, b, pure=False) for b in blocks]))


if __name__ == "__main__":
    main()
