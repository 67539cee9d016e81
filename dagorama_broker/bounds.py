"""What one caller may ask for, and what workers are asked to keep to.

Past a bound there is a sentence, never a crash.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dagorama_broker.errors import Full, TooMuch

#: Bytes that gRPC's clients take in one message unless told otherwise.
MESSAGE = 4 << 20


@dataclass(frozen=True, slots=True)
class Manners:
    """What a worker is told when it connects."""

    heartbeat: float = 10.0  #: seconds between heartbeats
    large_from: int = 256 << 10  #: bytes from which a value travels apart
    cancel_grace: float = 5.0  #: seconds between telling a run that it is cancelled and stopping it
    values_folder: tuple[str, str] = ("", "")  #: path and word of what Store.share_large has shared


@dataclass(frozen=True, slots=True)
class Bounds:
    nodes_per_call: int = 1_000_000
    call_bytes: int = 256 << 20  #: of one submission, in all its messages
    value_bytes: int = 1 << 30  #: of one large value

    def check_nodes(self, nodes: int) -> None:
        if nodes > self.nodes_per_call:
            raise TooMuch(f"{nodes} nodes in one call; {self.nodes_per_call} are allowed")

    def check_submission(self, size: int) -> None:
        if size > self.call_bytes:
            raise TooMuch(f"a submission of more than {self.call_bytes} bytes; put large values apart")

    def check_value(self, size: int) -> None:
        if size > self.value_bytes:
            raise TooMuch(f"a value of more than {self.value_bytes} bytes")


class Gathering:
    """Bytes of submissions that are still coming in, of all callers: they are in memory until their last message."""

    def __init__(self, bounds: Bounds) -> None:
        self.most = 2 * bounds.call_bytes
        self.size = 0

    def add(self, size: int) -> None:
        if self.size + size > self.most:
            raise Full(f"others are sending {self.size} bytes at this moment; try again")
        self.size += size

    def let_go(self, size: int) -> None:
        self.size -= size


class Streams:
    """Calls that are open at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around a call. Raises Full."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """Before a call that is to `leave`. Raises Full."""
        if self.open >= self.most:
            raise Full(f"{self.open} calls are open at this moment, and this broker takes no more; try again")
        self.open += 1

    def leave(self) -> None:
        self.open -= 1
