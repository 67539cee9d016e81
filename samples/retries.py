"""Failed nodes are run again as their retry policy says; the last failure reaches the caller with its traceback.

Run: python samples/retries.py

`StaticRetry` pauses the same time before each further run, `ExponentialRetry` longer each time. `max_attempts` counts
runs, the first one too. A node runs in any worker, so what it must remember between runs lives outside it: here in a
file, one line for each run.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from dagorama import NodeFailed
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.retry import ExponentialRetry, StaticRetry
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker


def block_of(record: Path) -> int:
    """Count one more run and return its number."""
    with record.open("a") as lines:
        lines.write("run\n")
    return len(record.read_text().splitlines())


class Download(DAGDefinition):
    """Fetches a page that answers only the third time."""

    @dagorama().syncfn
    def entrypoint(self, record: Path) -> int:
        return self.length(self.fetch(record))

    @dagorama(retry=StaticRetry(max_attempts=3, interval=0.2)).syncfn
    def fetch(self, record: Path) -> str:
        run = block_of(record)
        if run < 3:
            raise ConnectionError(f"no answer in run {run}")
        return f"the page, in run {run}"

    @dagorama().syncfn
    def length(self, page: str) -> int:
        return len(page)


class Hopeless(DAGDefinition):
    """Asks twice and is told no twice."""

    @dagorama().syncfn
    def entrypoint(self, record: Path) -> str:
        return self.fetch(record)

    @dagorama(retry=ExponentialRetry(max_attempts=2, base_interval=1)).syncfn
    def fetch(self, record: Path) -> str:
        raise ConnectionError(f"refused in run {block_of(record)}")


def failure_of(record: Path) -> NodeFailed:
    try:
        resolve(*Hopeless()(record), timeout=30)
    except NodeFailed as failure:
        return failure
    raise AssertionError("a node that always fails gave a value")


def main() -> None:
    with launch_broker(port=0), launch_workers(2), TemporaryDirectory() as folder:
        length = resolve(*Download()(Path(folder, "download")), timeout=30)
        failure = failure_of(Path(folder, "hopeless"))

    print(f"Download: {length} characters, after two failures")
    print(f"Hopeless: {failure.function} failed after {failure.attempts} runs")
    print(f"  {failure.type}: {failure.message}")
    assert length == len("the page, in run 3")
    assert failure.attempts == 2
    assert "refused in run 2" in failure.traceback


if __name__ == "__main__":
    main()
