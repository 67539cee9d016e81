"""A PostgreSQL server with a synchronous replica, which takes its place when it crashes, again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from subprocess import CalledProcessError

import psycopg

from tests.support.postgres_server import PostgresServer, server_folder, server_programs

#: Seconds in which a replica must have caught up.
_PATIENCE = 60


class Replicated:
    """Two servers: one is written to, and the other one confirms each commit before it is acknowledged."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.primary = self._started()
        self.replica = self._follow()
        ports = self.primary.port, self.replica.port
        #: libpq's URL of both, of which the one that may be written to is taken
        self.url = self.primary.url.replace(f":{ports[0]}/", f":{ports[0]},127.0.0.1:{ports[1]}/")
        self.url += "?target_session_attrs=read-write"

    def fail_over(self) -> None:
        """Crash the server and promote its replica."""
        self.primary.stop()
        self.replica.promote()
        # Until it has a replica of its own, it must not wait for one.
        _say(self.replica, "ALTER SYSTEM SET synchronous_standby_names = ''")
        self._crashed, self.primary = self.primary, self.replica

    def restore(self) -> None:
        """Start another replica in the place of the server that has crashed; return when commits wait for it."""
        self.replica = self._follow(self._crashed.port)

    def _started(self, port: int = 0, primary: PostgresServer | None = None) -> PostgresServer:
        server = PostgresServer(server_programs(), self._stack.enter_context(server_folder()), primary)
        server.port = port
        server.start()
        self._stack.callback(_stop, server)
        return server

    def _follow(self, port: int = 0) -> PostgresServer:
        replica = self._started(port, self.primary)
        _say(self.primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        deadline = time.monotonic() + _PATIENCE
        with psycopg.connect(self.primary.url, autocommit=True) as asking:
            while asking.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone() is None:
                assert time.monotonic() < deadline, "the replica does not follow"
                time.sleep(0.01)
        return replica


def _stop(server: PostgresServer) -> None:
    with suppress(CalledProcessError):  # it has crashed
        server.stop()


def _say(server: PostgresServer, setting: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(setting.encode())
        connection.execute("SELECT pg_reload_conf()")


@contextmanager
def replicated() -> Iterator[Replicated]:
    """Start a server and its replica. Raise NoServer if there is none to start."""
    with ExitStack() as stack:
        yield Replicated(stack)
