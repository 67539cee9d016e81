"""The cost of an open page for the work, and the time that the pages of a large instance take."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from statistics import median
from threading import Thread
from time import perf_counter, sleep

from dagorama import resolve
from suite.graphs import Fan
from suite.serving import serving
from suite.table import Row, row

#: Seconds before a run for pages that the run before has left behind.
REST = 0.5
#: The parts of the page of an instance that a browser loads.
LOADED = ("", "/graph/shape", "/graph/map")


def dashboard(width: int, runs: int) -> Iterator[Row]:
    """Measure the fan alone and with its page open, in turns; then how long the parts of the page take."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    with serving(), _pages() as port, ProcessPoolExecutor(1, get_context("spawn")) as browser:
        browser.submit(int).result()  # its process is there
        instance, promise = Fan()(16)
        resolve(instance, promise, timeout=60)
        for is_open in [False, True] * runs:
            start = perf_counter()
            instance, promise = Fan()(width)
            seen = browser.submit(_open, port, f"{instance.instance_id}") if is_open else None
            assert resolve(instance, promise, timeout=300) == sum(range(width))
            rates[is_open].append((width + 2) / (perf_counter() - start))
            assert seen is None or seen.result() > 0
            sleep(REST)
        ratio = median([seen / alone for alone, seen in zip(rates[False], rates[True], strict=True)])
        note = f"{ratio:.3f} of the run before without a page"
        yield row(f"fan, {width:,} nodes, its page open", rates[True], "nodes/s", "0.97 of it unwatched", note=note)
        for part in LOADED:
            times = [_loaded(port, f"/instances/{instance.instance_id}{part}") * 1000 for _ in range(runs)]
            yield row(f"page of {width:,} nodes, {part.rpartition('/')[2] or 'its HTML'}", times, "ms", "")


@contextmanager
def _pages() -> Iterator[int]:
    """Serve the dashboard in a process of its own, and yield its port."""
    command = [sys.executable, "-m", "dagorama", "dashboard", "--http-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(":")[2])
        process.terminate()


def _open(port: int, instance: str) -> int:
    """Load the page of an instance as a browser does, and read its streams until it has ended; return their bytes."""
    page = f"/instances/{instance}"
    for part in LOADED:
        _loaded(port, page + part)
    read: list[int] = []
    Thread(target=_read, args=(port, f"/live{page}", [], "never"), daemon=True).start()  # until this process ends
    _read(port, f"{page}/graph/live", read, "event: ended")
    return sum(read)


def _loaded(port: int, path: str) -> float:
    start = perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 200, path
    return perf_counter() - start


def _read(port: int, path: str, read: list[int], end: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    with connection.getresponse() as response:
        for line in response:
            read.append(len(line))
            if line.decode().startswith(end):
                break
    connection.close()
