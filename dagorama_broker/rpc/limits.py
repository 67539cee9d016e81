"""What one caller may ask for, and what workers are asked to keep to.

Past a bound there is a sentence, never a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from weakref import WeakValueDictionary

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


class Kind(Enum):
    """What calls are about. A part of all open calls is kept for each kind."""

    WORK = "workers"
    LOOK = "looking"
    SUBMIT = "submitting"
    WAIT = "waiting"
    TALK = "talking"
    VALUE = "values"


#: The share of all open calls that is kept for each kind is one in this many.
KEPT = 20


def share(of: int) -> int:
    """How much of a bound one caller may take while others may need it too: three quarters."""
    return of - of // 4


class Turns:
    """Work of which only so much goes on at once. The rest waits, and of one caller what is past its share."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._all = asyncio.Semaphore(most)
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def one(self, whose: str = "") -> AsyncIterator[None]:
        """Around the work: wait for a turn."""
        own = self._own.get(whose)
        if own is None:
            own = self._own[whose] = asyncio.Semaphore(share(self.most))
        async with own, self._all:
            yield


class Places:
    """A number of places, of which one caller gets at most its share."""

    __slots__ = ("_share", "_taken", "free")

    def __init__(self, most: int) -> None:
        self.free = most
        self._share = share(most)
        self._taken: dict[str, int] = {}

    def take(self, whose: str) -> bool:
        """Take one if there is one for this caller."""
        taken = self._taken.get(whose, 0)
        if not self.free or taken >= self._share:
            return False
        self.free -= 1
        self._taken[whose] = taken + 1
        return True

    def give_back(self, whose: str) -> None:
        self.free += 1
        self._taken[whose] -= 1
        if not self._taken[whose]:
            del self._taken[whose]


class Streams:
    """Calls that are open at once: some places are kept for each kind of call, the others are for all of them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = 0
        self._kept = {kind: Places(most // KEPT) for kind in Kind}
        self._shared = Places(most - len(Kind) * (most // KEPT))

    @contextmanager
    def one(self, kind: Kind = Kind.SUBMIT, whose: str = "") -> Iterator[None]:
        """Around a call. Raises Full."""
        place = self.enter(kind, whose)
        try:
            yield
        finally:
            place.leave()

    def enter(self, kind: Kind = Kind.SUBMIT, whose: str = "") -> Place:
        """Take a place for a call; it ends with `Place.leave`. Raises Full."""
        for places in (self._shared, self._kept[kind]):
            if places.take(whose):
                self.open += 1
                return Place(self, places, whose)
        if self.open >= self.most:
            raise Full(f"{self.open} calls are open at this moment, and this broker takes no more; try again")
        raise Full(
            f"{self.open} calls are open at this moment, and the places that are left are kept for other callers or"
            " for other kinds of calls; end some of yours, or try again"
        )


class Place:
    """The place of one open call."""

    __slots__ = ("_places", "_streams", "_whose")

    def __init__(self, streams: Streams, places: Places, whose: str) -> None:
        self._streams, self._places, self._whose = streams, places, whose

    def leave(self) -> None:
        """Call this once."""
        self._streams.open -= 1
        self._places.give_back(self._whose)
