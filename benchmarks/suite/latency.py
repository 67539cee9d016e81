"""How long one waits: a node and its answer, the README's sample, a program from nothing to its answer."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

from dagorama import launch_workers, resolve
from dagorama_broker.launch import launch_broker
from suite.graphs import One, Sleepers
from suite.serving import Serving
from suite.table import Row, row, share

SAMPLES = Path(__file__).parents[2] / "samples"
ASLEEP = 2.0  #: seconds that the sample's nodes sleep, side by side


def round_trip(served: Serving, times: int, clients: int) -> Iterator[Row]:
    alone = [once(number) for number in range(times)]
    yield _at(alone, 0.5, "round trip, median", "2.0")
    yield _at(alone, 0.99, "round trip, p99", "5.0")
    start = threading.Barrier(clients)

    def client(number: int) -> list[float]:
        start.wait()
        return [once(number) for _ in range(times // clients)]

    with ThreadPoolExecutor(clients) as threads:
        together = [each for one in threads.map(client, range(clients)) for each in one]
    yield _at(together, 0.5, f"round trip, {clients} clients at once, median", "")
    yield _at(together, 0.99, f"round trip, {clients} clients at once, p99", "")


def _at(milliseconds: list[float], part: float, workload: str, reach: str) -> Row:
    return Row(workload, share(milliseconds, part), "ms", milliseconds, reach, f"of {len(milliseconds)}")


def once(number: int) -> float:
    """Return the milliseconds from the call of a node to its value."""
    start = perf_counter()
    assert resolve(*One()(number), timeout=60) == number
    return (perf_counter() - start) * 1000


def sleep(runs: int) -> Iterator[Row]:
    with launch_broker(port=0), launch_workers(4):
        resolve(*One()(0), timeout=60)
        beyond = [_slept() for _ in range(runs)]
    yield row("sleep, beyond the 2.0, workers running", beyond, "s", "0.05")
    whole = [_sample("test2.py", "Response: Counter") - ASLEEP for _ in range(runs)]
    yield row("sleep, beyond the 2.0, all of it started", whole, "s", "0.4", "interpreter, broker and four workers too")


def _slept() -> float:
    start = perf_counter()
    assert resolve(*Sleepers()(), timeout=60) == 6
    return perf_counter() - start - ASLEEP


def start(runs: int) -> Iterator[Row]:
    answers = [_sample("one_node.py", "Hello") for _ in range(runs)]
    yield row("start, samples/one_node.py to its answer", answers, "s", "0.6")
    imports = [_imported() for _ in range(2 * runs)]
    yield row("start, `import dagorama` beyond the interpreter's own start", imports, "ms")


def _sample(name: str, answer: str) -> float:
    """Seconds from the start of the interpreter until the program prints its answer."""
    begin = perf_counter()
    with subprocess.Popen([sys.executable, SAMPLES / name], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        line = program.stdout.readline()
        seconds = perf_counter() - begin
    assert line.startswith(answer), line
    return seconds


def _imported() -> float:
    def timed(code: str) -> float:
        begin = perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (perf_counter() - begin) * 1000

    return timed("import dagorama") - median(timed("pass") for _ in range(3))
