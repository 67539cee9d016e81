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

log = logging.getLogger("dagorama_broker")

#: The name of the socket, and how the names of its folders begin.
SOCKET, FOLDER = "socket", "dagorama-broker-"
#: Bytes of the longest path that a Unix socket can have, with its final zero, on Linux.
LONGEST_PATH = 108
#: The part of all connections that may be local ones, as its denominator.
PART = 4


class LocalServer:
    """Serves `Exchange` and `Work` on a Unix socket."""

    door: AuthInterceptor  #: of all calls; set by `start`

    def __init__(self, settings: Settings, most: int, folder: Path | None) -> None:
        """`most`: connections of the broker; `folder`: of the socket, or None for no socket."""
        self.folder = folder
        self.word = os.urandom(32).hex()
        self.max_message = settings.max_message
        self.methods: Mapping[str, Method] = {}
        self._handshake = settings.handshake_timeout
        self._most = max(1, most // PART)
        self._connections: set[LocalConnection] = set()
        self._server: asyncio.Server | None = None
        self._looking: asyncio.Task[None] | None = None

    @classmethod
    async def prepared(cls, settings: Settings, most: int) -> LocalServer:
        """Return a server with a new folder, if the settings and the machine allow one."""
        # A client certificate is an identity that a socket does not show.
        is_wanted = settings.local_socket and not settings.tls_client_ca and hasattr(socket, "SO_PEERCRED")
        return cls(settings, most, await asyncio.to_thread(_new_folder) if is_wanted else None)

    @property
    def announced(self) -> tuple[str, str]:
        """The path of the socket and the word that its clients say; both empty if there is no socket."""
        return ("", "") if self.folder is None else (str(self.folder / SOCKET), self.word)

    async def start(self, door: AuthInterceptor, service: BrokerService) -> None:
        """Listen."""
        if self.folder is None:
            return
        self.door = door
        self.methods = {
            "Exchange": Method(service.Exchange, pb.Requests.FromString),
            "Work": Method(service.Work, pb.WorkerMessage.FromString),
        }
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: LocalConnection(self), self.folder / SOCKET)
        self._looking = loop.create_task(self._look())

    async def stop(self, grace: float) -> None:
        """Accept no more connections, and end the open ones after `grace` seconds."""
        if self.folder is None:
            return
        if self._server is not None:
            self._server.close()
        await asyncio.to_thread(rmtree, self.folder, ignore_errors=True)
        if open_calls := [each.task for each in self._connections if each.task is not None]:
            await asyncio.wait(open_calls, timeout=grace)
        for connection in list(self._connections):
            connection.abort()
        if self._looking is not None:
            self._looking.cancel()

    # --- connections ------------------------------------------------------------------------------

    def enters(self, connection: LocalConnection, descriptor: int) -> bool:
        """Count a connection, and return whether there is room for it; numbers of descriptors grow with their count."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if len(self._connections) >= self._most or descriptor >= limit - min(RESERVED, limit // 2):
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


def _new_folder() -> Path | None:
    """Make a private folder for a socket, and remove folders of killed brokers; None: there can be none."""
    for parent in _parents():
        with suppress(OSError):
            _remove_stale(parent)
            folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=parent))
            if len(os.fsencode(folder / SOCKET)) < LONGEST_PATH:
                return folder
            folder.rmdir()
    log.info("no folder for a local socket: clients on this machine use the network")
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
            if folder.lstat().st_uid == os.geteuid() and _is_refused(folder / SOCKET):
                rmtree(folder)


def _is_refused(path: Path) -> bool:
    """Return whether no process listens on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
