"""The broker's calls about large values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from dagorama.api import broker_pb2
from dagorama.client.chunks import DEADLINE, VALUE_LIMIT, refuse_excess, transfer_deadline, value_chunks
from dagorama.errors import BrokerError

if TYPE_CHECKING:
    from dagorama.api.broker_pb2_grpc import BrokerStub

T = TypeVar("T")


class ValueCalls(ABC):
    """The part of a `Connection` that sends and reads large values."""

    stub: BrokerStub

    @abstractmethod
    def _ask(self, call: Callable[[float], T], seconds: float = DEADLINE) -> T:
        """Make a call as `InspectionCalls._ask` does."""

    def put_value(self, data: bytes | bytearray | memoryview, digest: bytes | None = None) -> bytes:
        """Store a large value; return its SHA-256, which is `digest` if the caller knows it."""
        refuse_excess(len(data))
        digest = digest or sha256(data).digest()
        deadline = transfer_deadline(len(data))
        reply = self._ask(lambda timeout: self.stub.PutValue(value_chunks(data), timeout=timeout), deadline)
        if reply.sha256 != digest:
            raise BrokerError("the broker stored different bytes than were sent", "DATA_LOSS")
        return digest

    def get_shared_folder(self) -> broker_pb2.GetSharedFolderReply:
        """Return the folder of large values that a client on the same machine may read."""
        request = broker_pb2.GetSharedFolderRequest()
        return self._ask(lambda timeout: self.stub.GetSharedFolder(request, timeout=timeout))

    def import_value(self, digest: bytes, length: int, unfinished: str = "") -> bool:
        """Return whether the broker has the value now, if necessary from the file `unfinished` in its folder."""
        request = broker_pb2.ImportValueRequest(sha256=digest, length=length, unfinished=unfinished)
        return self._ask(
            lambda timeout: self.stub.ImportValue(request, timeout=timeout), transfer_deadline(length)
        ).kept

    def keep_value(self, digest: bytes, length: int, name: str = "") -> broker_pb2.KeepValueReply:
        """Return whether the broker has the value, and otherwise where to send it; `name`: the object that was sent."""
        request = broker_pb2.KeepValueRequest(sha256=digest, length=length, object=name)
        return self._ask(lambda timeout: self.stub.KeepValue(request, timeout=timeout))

    def find_value(self, digest: bytes, wrong: str = "") -> broker_pb2.FindValueReply:
        """Return where to read the large value with this SHA-256; raise NotFound.

        `wrong`: the object of an earlier reply that had other bytes.
        """
        request = broker_pb2.FindValueRequest(sha256=digest, wrong=wrong)
        return self._ask(lambda timeout: self.stub.FindValue(request, timeout=timeout))

    def get_value(self, digest: bytes) -> bytes:
        """Return the large value with this SHA-256, which the caller must check; raise NotFound."""
        request = broker_pb2.GetValueRequest(sha256=digest)
        return self._ask(
            lambda timeout: b"".join(chunk.data for chunk in self.stub.GetValue(request, timeout=timeout)),
            transfer_deadline(VALUE_LIMIT),
        )
