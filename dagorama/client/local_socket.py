"""Find and open the Unix socket of a broker that this user runs on this machine.

The rule: the broker names its socket over gRPC. It is used only if its folder is closed to other users and the
process behind it is this user's; otherwise, or if it does not answer, the call goes over gRPC.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import MESSAGE_LIMIT, RETRY_AFTER
from dagorama.api.frames import PROTOCOL, FrameError, FrameReader, frame, peer_user
from dagorama.client.addresses import is_loopback
from dagorama.client.channel import Token
from dagorama.errors import SettingsError
from dagorama.logging import get_logger
from dagorama.settings import local_socket
from dagorama.values.private_files import OTHERS

if TYPE_CHECKING:
    import grpc.aio

    from dagorama.settings import Settings

M = TypeVar("M", bound=Message)

#: Seconds that a broker has to say where its socket is, and to answer there.
PATIENCE = 2.0
#: Bytes of the first frame of a broker, a PING or the END with a refusal, that are read at most.
_FIRST = 64 << 10


def is_worth_asking(settings: Settings) -> bool:
    """Return whether the broker of these settings may have a socket for this process. Raises SettingsError."""
    if not local_socket() or not hasattr(socket, "SO_PEERCRED") or not any(map(is_loopback, settings.hosts)):
        return False
    gevent = sys.modules.get("gevent.monkey")  # under its patches the waits of gRPC are the ones that work
    return gevent is None or not gevent.is_module_patched("socket")


def first_frame(found: pb.LocalSocket, call: str, settings: Settings) -> bytes:
    """Return the frame that begins a call."""
    token = Token.of(settings)
    hello = pb.LocalHello(
        protocol=PROTOCOL, call=call, nonce=found.nonce, authorization="" if token is None else token.header()[1]
    )
    return frame(hello.SerializeToString())


def is_private(found: pb.LocalSocket) -> bool:
    """Return whether there is such a socket, in a folder that only this user can enter."""
    if not found.path or not found.nonce:
        return False
    try:
        folder = Path(found.path).parent.stat()
    except (OSError, ValueError):
        return False
    return folder.st_uid == os.geteuid() and not folder.st_mode & OTHERS


def is_own(connection: socket.socket) -> bool:
    """Return whether the process at the other end of a Unix socket is this user's."""
    return peer_user(connection) == os.geteuid()


class Accepted:
    """A connection whose hello the broker has answered, with the frames that it has sent."""

    def __init__(self, connection: socket.socket, reader: FrameReader, frames: list[tuple[int, bytes]]) -> None:
        self.connection, self.reader, self.frames = connection, reader, frames


def connected(found: pb.LocalSocket, call: str, settings: Settings) -> Accepted | None:
    """Begin a call on the socket that a broker has named; return None if it must go over gRPC."""
    if not is_private(found):
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        hello = first_frame(found, call, settings)
        connection.settimeout(PATIENCE)
        connection.connect(found.path)
        if is_own(connection):
            connection.sendall(hello)
            reader = FrameReader(MESSAGE_LIMIT)
            while data := connection.recv(_FIRST):
                if frames := reader.feed(data):
                    return Accepted(connection, reader, frames)
        why = "it has closed the connection"
    except (OSError, FrameError, SettingsError) as error:
        why = str(error)
    connection.close()
    get_logger().debug("the local socket of the broker cannot be used (%s): %s goes over gRPC", why, call)
    return None


def broken(why: str) -> grpc.aio.AioRpcError:
    """Return the error of a call whose connection has ended without a status."""
    return _error(pb.Refusal(status=14, message=f"the connection to the local socket has ended: {why}"))


def message_of(kind: type[M], body: bytes) -> M:
    """Return the message in a frame. Raises AioRpcError if it cannot be read."""
    try:
        return kind.FromString(body)
    except DecodeError:
        raise _error(pb.Refusal(status=13, message=f"unexpected message from the broker, no {kind.__name__}")) from None


def end_of_call(body: bytes) -> grpc.aio.AioRpcError | None:
    """Return the error with which a broker ends a call, or None. `body` is of a frame of kind END."""
    refusal = message_of(pb.Refusal, body)
    return _error(refusal) if refusal.status else None


def _error(refusal: pb.Refusal) -> grpc.aio.AioRpcError:
    import grpc

    code = next((code for code in grpc.StatusCode if code.value[0] == refusal.status), grpc.StatusCode.UNKNOWN)
    trailing = [(RETRY_AFTER, str(refusal.retry_after))] if refusal.retry_after else []
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), refusal.message)
