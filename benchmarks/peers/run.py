"""Dask, Ray and Celery on the suite's workloads, each with two worker processes in its best known configuration.

Run: make bench-peers, which makes an environment for them next to the project's own. Celery needs `redis-server`, which
is a package of most systems; where it is missing, a sentence says so and the others run.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = 900.0  #: for one peer
STARTING = 10.0  #: for Redis


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis() -> Iterator[str | None]:
    """Yield the address of a Redis server in memory; None if there is no such program."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        # Results are told by messages: without the limit's end, Redis hangs up on who is told of many large ones.
        unlimited = ["--client-output-buffer-limit", "pubsub", "0", "0", "0"]
        where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command = [program, *where, "--save", "", *unlimited]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                _wait_for(port)
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                server.terminate()


def _wait_for(port: int) -> None:
    until = time.monotonic() + STARTING
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def measured(name: str, **environment: str) -> list[dict[str, object]]:
    """Run one peer and return its rows; its other output goes to standard error."""
    command = [sys.executable, str(HERE / f"{name}_peer.py")]
    settings = {**os.environ, **environment}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=SECONDS, cwd=HERE, env=settings)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        print(f"{name} ended with code {done.returncode} after {len(rows)} workloads", file=sys.stderr)
    for row in rows:
        print(f"{name:8} {row['workload']:24} {row['figure']:12,.2f} {row['unit']}", flush=True)
    return [{"peer": name, **row} for row in rows]


def main() -> None:
    rows = measured("dask") + measured("ray")
    with redis() as address:
        if address is None:
            print("no redis-server on this machine: Celery is left out (on Debian: apt install redis-server)")
        else:
            rows += measured("celery", REDIS=address)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
