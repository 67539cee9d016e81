"""The Unix socket of a broker, for processes of its user on its machine: they need no gRPC for the two long streams.

The rule: the socket lies in a folder of its own that only this user can enter, and a client is told where by a call
over gRPC. If there can be no such folder, there is no socket, and all calls go over gRPC.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from shutil import rmtree

from dagorama.api import broker_pb2 as pb
from dagorama.api.frames import PING_EVERY
from dagorama_broker.environment import runtime_folder
from dagorama_broker.rpc.interceptor import AuthInterceptor
from dagorama_broker.rpc.local_call import LocalConnection, Method
from dagorama_broker.rpc.service import BrokerService
from dagorama_broker.settings import Settings
from dagorama_broker.store.descriptors import RESERVED
from dagorama_monitoring.listener import AcceptErrors

log = logging.getLogger("dagorama_broker")

#: The names of the socket, of the file that its broker has locked, and of that file before; how names of folders begin.
SOCKET, LOCK, NEW, FOLDER = "socket", "lock", "unlocked", "dagorama-broker-"
#: Connections that may wait to be accepted.
BACKLOG = 1024
#: The part of all connections that may be local ones, as its denominator.
PART = 4


class LocalServer:
    """Serves `Exchange` and `Work` on a Unix socket."""

    door: AuthInterceptor  #: of all calls; set by `start`

    def __init__(self, settings: Settings, most: int) -> None:
        """Make a server that does not listen yet. `most`: connections of the broker."""
        # A client certificate is an identity that a socket does not show.
        self._is_wanted = settings.local_socket and not settings.tls_client_ca and hasattr(socket, "SO_PEERCRED")
        self._folder: Path | None = None
        self._lock = -1  # the descriptor that keeps other brokers from removing the folder
        self.word = os.urandom(32).hex()
        self.max_message = settings.max_message
        self.methods: Mapping[str, Method] = {}
        self._handshake = settings.handshake_timeout
        self._most = max(1, most // PART)
        self._connections: set[LocalConnection] = set()
        self._server: asyncio.Server | None = None
        self._looking: asyncio.Task[None] | None = None

    def announced(self) -> tuple[str, str]:
        """Return the path of the socket and the word that its clients say; both empty if there is no socket."""
        return ("", "") if self._folder is None else (str(self._folder / SOCKET), self.word)

    async def start(self, door: AuthInterceptor, service: BrokerService) -> None:
        """Listen, if the settings and the machine allow it."""
        if not self._is_wanted or (found := await asyncio.to_thread(_new_socket)) is None:
            return
        self._folder, self._lock, listening = found
        self.door = door
        self.methods = {
            "Exchange": Method(service.Exchange, pb.Requests.FromString),
            "Work": Method(service.Work, pb.WorkerMessage.FromString),
        }
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(AcceptErrors(log, "connections of processes on this machine"))
        self._server = await loop.create_unix_server(lambda: LocalConnection(self), sock=listening, backlog=BACKLOG)
        self._looking = loop.create_task(self._look())

    async def stop(self, grace: float) -> None:
        """Accept no more connections, and end the open ones after `grace` seconds."""
        if self._folder is None or self._server is None:
            return
        folder, self._folder = self._folder, None
        self._server.close()
        await asyncio.to_thread(rmtree, folder, ignore_errors=True)
        if open_calls := [each.task for each in self._connections if each.task is not None]:
            await asyncio.wait(open_calls, timeout=grace)
        for connection in list(self._connections):
            connection.abort()
        while self._connections:  # asyncio closes them in its next turns
            await asyncio.sleep(0)
        if self._looking is not None:
            self._looking.cancel()
        os.close(self._lock)

    # --- connections ------------------------------------------------------------------------------

    def enters(self, connection: LocalConnection, descriptor: int) -> bool:
        """Count a connection, and return whether there is room for it; numbers of descriptors grow with their count."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        is_full = len(self._connections) >= self._most or descriptor >= limit - min(RESERVED, limit // 2)
        if is_full or self._folder is None:  # a connection may be accepted just before the socket is closed
            return False
        self._connections.add(connection)
        return True

    def leaves(self, connection: LocalConnection) -> None:
        """Forget a connection that has ended."""
        self._connections.discard(connection)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PING_EVERY)
            for connection in list(self._connections):
                connection.look(loop.time(), self._handshake)


def _new_socket() -> tuple[Path, int, socket.socket] | None:
    """Listen in a new private folder, and remove folders of killed brokers; return None if there can be no socket.

    The folder is this broker's as long as the descriptor that comes with it is open.
    """
    why = "no folder for it"
    for parent in _parents():
        try:
            _remove_stale(parent)
            folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=parent))
        except OSError as error:
            why = str(error)
            continue
        listening, lock = socket.socket(socket.AF_UNIX), -1
        try:
            lock = os.open(folder / NEW, os.O_RDWR | os.O_CREAT, 0o600)
            flock(lock, LOCK_EX)
            (folder / NEW).rename(folder / LOCK)  # so that no other broker sees the file without the lock
            listening.bind(str(folder / SOCKET))
            return folder, lock, listening
        except OSError as error:
            why = f"{folder}: {error}"
            listening.close()
            if lock >= 0:
                os.close(lock)
            rmtree(folder, ignore_errors=True)
    log.warning("there is no local socket (%s), so clients on this machine connect over the network", why)
    return None


def _parents() -> Iterator[Path]:
    with suppress(OSError):
        if (folder := runtime_folder()) is not None:
            found = folder.stat()
            if found.st_uid == os.geteuid() and not found.st_mode & 0o077:
                yield folder
    yield Path(tempfile.gettempdir())
    yield Path("/tmp")


def _remove_stale(parent: Path) -> None:
    for folder in parent.glob(f"{FOLDER}*"):
        with suppress(OSError):
            if folder.lstat().st_uid == os.geteuid() and _is_left(folder / LOCK):
                rmtree(folder)


def _is_left(lock: Path) -> bool:
    """Return whether the process that locked a file has ended. A broker that just starts has not made the file yet."""
    descriptor = os.open(lock, os.O_RDWR)
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
