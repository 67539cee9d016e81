"""A broker and two workers to measure, durable, on a store in a temporary folder; and what their processes use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from dagorama import DAGInstance, DAGPromise, launch_workers, resolve
from dagorama.api import broker_pb2 as pb
from dagorama.client.connection import connection
from dagorama_broker.launch import LaunchedBroker, launch_broker
from suite.graphs import Chain, Fan, HopByHop, One, Small

WORKERS = 2
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Serving:
    broker: LaunchedBroker
    folder: Path

    def counters(self) -> tuple[int, int]:
        """Messages, both ways, and commits since the broker's start."""
        status = connection().get_status()
        return status.messages_in + status.messages_out, status.commits

    def stored(self) -> int:
        """Bytes of large values in the store."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if ".values" in str(file) and file.is_file())


@contextmanager
def serving(workers: int = WORKERS, store: str = "", **environment: str) -> Iterator[Serving]:
    """Workers are connected, and every function that is measured has run. `environment` is for all of it.

    `store` is the URL of the store, if that is not a SQLite file in the folder.
    """
    os.environ.update(environment)
    with TemporaryDirectory(prefix="dagorama-bench-") as folder:
        store = store or f"sqlite:///{Path(folder, 'broker.sqlite3')}"
        with launch_broker(port=0, store=store) as broker, launch_workers(workers):
            for instance, promise in (Fan()(16 * workers), Chain()(8), HopByHop()(8), One()(1), Small()(1)):
                resolve(instance, promise, timeout=60)
            yield Serving(broker, Path(folder))
    for name in environment:
        del os.environ[name]


def nodes_of(instance: DAGInstance, most: int = 1 << 62) -> list[UUID]:
    """Return the IDs of all its nodes, page by page, as the broker has recorded them."""
    found: list[UUID] = []
    after = 0
    while len(found) < most:
        request = pb.ListNodesRequest(instance=instance.instance_id.bytes, limit=PAGE, after=after)
        reply = connection().stub.ListNodes(request, timeout=60)
        found += [UUID(bytes=node.node) for node in reply.nodes]
        after = reply.more
        if not after:
            break
    return found


def promise_of(node: UUID) -> DAGPromise[object]:
    return DAGPromise(identifier=node)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Bytes of memory that are a process's own."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} does not say what memory it has")
