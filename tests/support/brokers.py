"""Brokers for tests whose subject is not the start of a broker: forks of a process that has imported the broker.

They are processes as `dagorama_broker.launch` starts them, with the same options, in a fifth of the time.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dagorama_broker.launch import HOST, MEMORY, LaunchedBroker, Process, launched
from tests.support.forks import Program, completed, fork_server

#: Modules that a broker imports until it serves.
IMPORTS = ("dagorama_broker.cli", "dagorama_broker.server", "dagorama_broker.store.sqlite.store")
BROKER = Program("dagorama_broker.cli:main", IMPORTS, has_session=True)


@contextmanager
def launch_broker(
    port: int = 0,
    store: str | None = None,
    *,
    host: str = HOST,
    log_level: str = "WARNING",
    environment: Mapping[str, str] | None = None,
) -> Iterator[LaunchedBroker]:
    """Run a broker for the length of the block, as `dagorama_broker.launch.launch_broker` does."""
    with launched(ForkedBroker(port, store or MEMORY, log_level, environment or {}, host)) as broker:
        yield broker


class ForkedBroker(LaunchedBroker):
    """A launched broker that is a fork."""

    program = BROKER

    def _run(self, command: list[str], environment: dict[str, str], pipes: tuple[int, int]) -> Process:
        arguments = command[command.index("serve") :]
        with open(os.devnull, "wb") as nothing:
            return fork_server(IMPORTS).fork(self.program, arguments, environment, (nothing.fileno(), 2), *pipes)


def broker_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a `dagorama-broker` command that ends by itself."""
    program = BROKER._replace(command="dagorama-broker", has_session=False)
    done = completed(program, list(arguments), dict(os.environ))
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
