"""A pool on Dask: a cluster that grows with the work of a graph, and shrinks to nothing afterwards.

Run: python samples/pool_dask.py
It needs `pip install 'dagorama[dask]'`.

`LocalCluster` starts Dask workers on this machine. A cluster of dask-jobqueue, such as `PBSCluster`, takes its place
without another change, as long as its machines reach the broker: see docs/how-to/pools.md.
"""

import os
import socket
import time

from distributed import LocalCluster  # pyright: ignore[reportMissingImports]  # an extra

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.pools import DaskPool
from dagorama_broker.launch import launch_broker


class Survey(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, count: int) -> list[str]:
        return self.together([self.look(number) for number in range(count)])

    @dagorama().syncfn
    def look(self, number: int) -> str:
        time.sleep(1)
        return f"{socket.gethostname()}:{os.getppid()}"

    @dagorama().syncfn
    def together(self, places: list[str]) -> list[str]:
        return sorted(set(places))


def main() -> None:
    with (
        launch_broker(port=0),
        LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=None) as cluster,
        DaskPool(cluster=cluster, max=3, idle=2, horizon=2),
    ):
        started = time.monotonic()
        instance, promise = Survey()(12)
        places = resolve(instance, promise, timeout=120)
        print(f"12 seconds of work on {len(places)} workers took {time.monotonic() - started:.0f} seconds")
        while cluster.worker_spec:
            time.sleep(0.5)
        print("the cluster is empty again")


if __name__ == "__main__":
    # Workers import the graph, so it must be in a module, and not in the program that was started.
    import pool_dask

    pool_dask.main()
