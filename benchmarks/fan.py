"""A wide fan: one entry node, N nodes that do nothing, one that sums them; through the public interface, durable.

Run: python benchmarks/fan.py [--nodes N] [--workers N] [--store sqlite | memory] [--runs N]

The clock runs from the call of the definition to the value in hand; broker and workers are up and have run one
small fan before. Messages and commits are the broker's own count of the same span.
"""

from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

from dagorama.connection import connection
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker


class Fan(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, width: int) -> int:
        return self.total([self.nothing(number) for number in range(width)])

    @dagorama().syncfn
    def nothing(self, number: int) -> int:
        return number

    @dagorama().syncfn
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


class Run(NamedTuple):
    seconds: float
    messages: int  # both ways
    commits: int


def counters() -> tuple[int, int]:
    status = connection().get_status()
    return status.messages_in + status.messages_out, status.commits


def one_run(width: int) -> Run:
    messages, commits = counters()
    start = perf_counter()
    total = resolve(*Fan()(width), timeout=300)
    seconds = perf_counter() - start
    messages_after, commits_after = counters()
    assert total == sum(range(width))
    return Run(seconds, messages_after - messages, commits_after - commits)


@contextmanager
def running(store: str, workers: int) -> Iterator[None]:
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder, 'broker.sqlite3')}" if store == "sqlite" else "memory://"
        with launch_broker(port=0, store=url), launch_workers(workers):
            one_run(16 * workers)
            yield


def measure(width: int, workers: int, store: str, runs: int) -> list[Run]:
    with running(store, workers):
        return [one_run(width) for _ in range(runs)]


def report(width: int, workers: int, store: str, runs: int) -> str:
    done = measure(width, workers, store, runs)
    rate = (width + 2) / median(run.seconds for run in done)
    messages = median(run.messages for run in done)
    commits = median(run.commits for run in done)
    return (
        f"{width:,} nodes, {workers} workers, {store}: {rate:,.0f} nodes/s, "
        f"{messages:,.0f} messages, {commits:,.0f} commits (medians of {runs})"
    )


def main() -> None:
    parser = ArgumentParser(description="nodes per second of a wide fan")
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--store", choices=["sqlite", "memory"], default="sqlite")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(report(options.nodes, options.workers, options.store, options.runs))


if __name__ == "__main__":
    main()
