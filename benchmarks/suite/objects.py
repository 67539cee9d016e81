"""Values in an object store on this machine: the rows of files, the same in Azurite, s3rver and moto, and directly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from dagorama.client.large_values import broker_values
from dagorama_broker.store.objects.remote import Remote
from suite.serving import WORKERS, Serving, cpu_seconds, serving
from suite.sizes import MIB, values
from suite.table import Row, row
from tests.support.object_programs import is_installed, running_azurite, running_s3rver
from tests.support.object_server import running_objects

BLOCKS, SIZE = 32, 4 * MIB


@contextmanager
def _moto(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with running_objects() as server:
        yield server.bucket(), server.environment


@contextmanager
def _azurite(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with running_azurite(folder) as environment:
        yield "az://values/bench", environment


@contextmanager
def _s3rver(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with running_s3rver(folder) as environment:
        yield "s3://values/bench", environment


def objects(runs: int) -> Iterator[Row]:
    """Measure files first, and then each server that is installed."""
    with serving() as served:
        yield from values(served, runs, "files that both sides see", "300", BLOCKS, SIZE)
    servers = {"moto": _moto, "azurite-blob": _azurite, "s3rver": _s3rver}
    for name, running in servers.items():
        if name != "moto" and not is_installed(name):
            continue
        with TemporaryDirectory(prefix="dagorama-bench-") as folder, ExitStack() as stack:
            url, environment = stack.enter_context(running(Path(folder)))
            with serving(WORKERS, "", DAGORAMA_VALUES=url, **environment) as served:
                yield from values(served, runs, f"in {name}", "0.6 of files", BLOCKS, SIZE)
                yield from _broker_seconds(served, name)
                yield from _alone(name, url)
            with serving(
                WORKERS, "", DAGORAMA_VALUES=f"{url}/2", DAGORAMA_VALUES_TRANSFER="broker", **environment
            ) as served:
                yield from values(served, runs, f"in {name}, through the broker", "", BLOCKS, SIZE)


def _broker_seconds(served: Serving, name: str) -> Iterator[Row]:
    """Measure the processor time of the broker for a value that is stored and read once."""
    pid = served.broker.pid
    assert pid is not None
    store = broker_values()
    before = cpu_seconds(pid)
    for _ in range(100):
        data = os.urandom(MIB)
        assert store.get(store.put(data)) == data
    yield row(f"broker, processor time of a value in {name}", [(cpu_seconds(pid) - before) * 10], "ms", "1 at most")


def _alone(name: str, url: str) -> Iterator[Row]:
    """Measure the server without us, by the library that the broker uses, one object after the other."""
    remote, data = Remote(url), os.urandom(SIZE)
    remote.open()
    start = perf_counter()
    for number in range(8):
        remote.put(f"alone/{number}", BytesIO(data))
        assert sum(map(len, remote.read(f"alone/{number}") or ())) == SIZE
    yield row(f"{name} alone, one after the other", [2 * 8 * SIZE / (perf_counter() - start) / 1e6], "MB/s")
