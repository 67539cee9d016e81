"""The cost of an open page for the work, and the time that the pages of a large instance take."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from os import nice
from statistics import median
from threading import Thread
from time import perf_counter, sleep

from dagorama import DAGInstance, resolve
from dagorama.client.connection import connection
from suite.graphs import HELD, HeldFan
from suite.serving import serving
from suite.table import Row, row

#: Seconds for streams to open before a run, and for what a run has left behind.
REST = 0.5
#: A browser is a process of another machine: here it yields to the processes that are measured.
BROWSER_NICENESS = 19
#: The parts of the page of an instance that a browser loads.
LOADED = ("", "/graph/shape", "/graph/map")


def dashboard(width: int, runs: int) -> Iterator[Row]:
    """Measure a fan alone and with its page open, in turns; then how long the parts of the page take.

    The nodes of the fan stand in a paused queue until its page is loaded, so that rates show the
    cost of following alone.
    """
    rates: dict[bool, list[float]] = {False: [], True: []}
    with serving(), _pages() as port, ProcessPoolExecutor(1, get_context("spawn")) as browser:
        browser.submit(nice, BROWSER_NICENESS).result()
        instance, promise = HeldFan()(1)
        resolve(instance, promise, timeout=60)
        for is_open in [False, True] * runs:
            connection().pause_queue(HELD)
            instance, promise = HeldFan()(width)
            _wait_until_queued(width)
            page = _page_of(instance)
            if is_open:
                for part in LOADED:
                    _loaded(port, page + part)
            streams = [browser.submit(_read, port, page)] if is_open else []
            sleep(REST)
            start = perf_counter()
            connection().pause_queue(HELD, resume=True)
            assert resolve(instance, promise, timeout=300) == sum(range(width))
            rates[is_open].append((width + 1) / (perf_counter() - start))
            assert all(stream.result() > 0 for stream in streams)
            sleep(REST)
        ratio = median([seen / alone for alone, seen in zip(rates[False], rates[True], strict=True)])
        note = f"{ratio:.3f} of the run before without a page"
        yield row(f"fan, {width:,} nodes, its page open", rates[True], "nodes/s", "0.97 of it unwatched", note=note)
        for part in LOADED:
            times = [_loaded(port, _page_of(instance) + part) * 1000 for _ in range(runs)]
            yield row(f"page of {width:,} nodes, {part.rpartition('/')[2] or 'its HTML'}", times, "ms", "")


def _page_of(instance: DAGInstance) -> str:
    return f"/instances/{instance.instance_id}"


def _wait_until_queued(width: int) -> None:
    while not any(queue.queue == HELD and queue.queued >= width for queue in connection().get_status().queues):
        sleep(0.05)


@contextmanager
def _pages() -> Iterator[int]:
    """Serve the dashboard in a process of its own, and yield its port."""
    command = [sys.executable, "-m", "dagorama", "dashboard", "--http-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(":")[2])
        process.terminate()


def _loaded(port: int, path: str) -> float:
    start = perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 200, path
    return perf_counter() - start


def _read(port: int, page: str) -> int:
    """Read the streams of the page of an instance as a browser does, until it has ended; return their bytes."""
    read: list[int] = []
    Thread(target=_read_stream, args=(port, f"/live{page}", [], "never"), daemon=True).start()  # until the process ends
    _read_stream(port, f"{page}/graph/live", read, "event: ended")
    return sum(read)


def _read_stream(port: int, path: str, read: list[int], end: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    with connection.getresponse() as response:
        for line in response:
            read.append(len(line))
            if line.decode().startswith(end):
                break
    connection.close()
