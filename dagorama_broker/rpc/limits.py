"""The limits of requests and of open calls, and the configuration that workers receive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from weakref import WeakValueDictionary

from dagorama_broker.errors import Overloaded, ResourceExhausted

#: Bytes of one message that gRPC's clients accept by default.
MESSAGE = 4 << 20


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The configuration that a worker receives when it connects."""

    heartbeat: float = 10.0  #: seconds between heartbeats
    large_from: int = 256 << 10  #: bytes from which a value is sent separately
    cancel_grace: float = 5.0  #: seconds between signalling a cancelled run and stopping it
    values_folder: tuple[str, str] = ("", "")  #: path and word from Store.share_large
    local_socket: Callable[[], tuple[str, str]] = lambda: ("", "")  #: path and word of the local transport


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The limits of one request."""

    nodes_per_call: int = 1_000_000
    call_bytes: int = 256 << 20  #: of one submission, in all its messages
    value_bytes: int = 1 << 30  #: of one large value

    def check_nodes(self, nodes: int) -> None:
        """Raise ResourceExhausted if one call creates too many nodes."""
        if nodes > self.nodes_per_call:
            raise ResourceExhausted(f"{nodes} nodes in one call; {self.nodes_per_call} are allowed")

    def check_submission(self, size: int) -> None:
        """Raise ResourceExhausted if a submission has too many bytes."""
        if size > self.call_bytes:
            raise ResourceExhausted(f"a submission of more than {self.call_bytes} bytes; use put() for large values")

    def check_value(self, size: int) -> None:
        """Raise ResourceExhausted if a large value has too many bytes."""
        if size > self.value_bytes:
            raise ResourceExhausted(f"a value of more than {self.value_bytes} bytes")


class Kind(Enum):
    """The kinds of calls. A share of all open calls is reserved for each kind."""

    WORK = "workers"
    LOOK = "looking"
    SUBMIT = "submitting"
    WAIT = "waiting"
    TALK = "talking"
    VALUE = "values"


#: One in this number of open calls is reserved for each kind.
KEPT = 20


def share(of: int) -> int:
    """Return how much of a limit one caller may use, so that something is left for others: three quarters."""
    return of - of // 4


class Turns:
    """Limits how much work is done at the same time, in total and for each caller; the rest waits."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._all = asyncio.Semaphore(most)
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def one(self, whose: str = "") -> AsyncIterator[None]:
        """Wait for a turn and hold it for the block."""
        own = self._own.get(whose)
        if own is None:
            own = self._own[whose] = asyncio.Semaphore(share(self.most))
        async with own, self._all:
            yield


class Places:
    """A number of places, of which each caller may take its share."""

    __slots__ = ("_share", "_taken", "free")

    def __init__(self, most: int) -> None:
        self.free = most
        self._share = share(most)
        self._taken: dict[str, int] = {}

    def take(self, whose: str) -> bool:
        """Take a place; return False if there is none for this caller."""
        taken = self._taken.get(whose, 0)
        if not self.free or taken >= self._share:
            return False
        self.free -= 1
        self._taken[whose] = taken + 1
        return True

    def give_back(self, whose: str) -> None:
        """Give back a place that this caller has taken."""
        self.free += 1
        self._taken[whose] -= 1
        if not self._taken[whose]:
            del self._taken[whose]


class CallLimiter:
    """Limits open calls: some places are reserved for each kind of call, the others are for all of them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = 0
        self._kept = {kind: Places(most // KEPT) for kind in Kind}
        self._shared = Places(most - len(Kind) * (most // KEPT))

    @contextmanager
    def one(self, kind: Kind = Kind.SUBMIT, whose: str = "") -> Iterator[None]:
        """Hold a place for the block. Raise Overloaded."""
        place = self.enter(kind, whose)
        try:
            yield
        finally:
            place.leave()

    def enter(self, kind: Kind = Kind.SUBMIT, whose: str = "") -> Place:
        """Take a place for a call, until `Place.leave`. Raise Overloaded."""
        for places in (self._shared, self._kept[kind]):
            if places.take(whose):
                self.open += 1
                return Place(self, places, whose)
        if self.open >= self.most:
            raise Overloaded(f"{self.open} calls are open, which is the limit of this broker; try again later")
        raise Overloaded(
            f"{self.open} calls are open, and the remaining places are reserved for other callers or for other kinds"
            " of calls; end some of your calls, or try again later"
        )


class Place:
    """The place of one open call."""

    __slots__ = ("_places", "_streams", "_whose")

    def __init__(self, streams: CallLimiter, places: Places, whose: str) -> None:
        self._streams, self._places, self._whose = streams, places, whose

    def leave(self) -> None:
        """Give the place back. Call this once."""
        self._streams.open -= 1
        self._places.give_back(self._whose)
