"""Defines what nodes, functions and failures are. Records and their own arithmetic, no rules of scheduling."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import pack, unpack
from typing import NamedTuple

#: Failures of earlier attempts that are kept with the last one.
MAX_EARLIER_FAILURES = 10
#: Characters of the traceback of each earlier failure.
MAX_EARLIER_TRACEBACK_CHARS = 16 << 10
#: A delay before the next attempt is never longer than this many seconds.
LONGEST_PAUSE = 366 * 86_400.0
#: The type that the failure of a cancelled node has; clients know it.
CANCELLATION = "dagorama.errors.NodeCancelled"


class State(IntEnum):
    """A node's state; the wire and the store use the same numbers."""

    WAITING = 0  #: for sources
    QUEUED = 1  #: for a worker
    CLAIMED = 2  #: by a worker
    RESOLVING = 3  #: it returned promises that are not kept yet
    BACKOFF = 4  #: until its next run
    COMPLETED = 5
    FAILED = 6
    CANCELLED = 7


ENDED = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})


class WireProtocol(IntEnum):
    """The protocol by which a node was submitted: nodes go only to workers of the same protocol."""

    V1 = 0
    LEGACY = 1


class EagerState(IntEnum):
    """The state of an attempt whose children were visible while it ran."""

    OPEN = 0  #: it runs, and may still fail
    COMMITTED = 1  #: it has completed: its children stay, or depend on the attempt that made its own node
    ABORTED = 2  #: it failed or was lost; its unfinished children were cancelled


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Defines whether and when a failed attempt is followed by another. Times are in seconds."""

    max_attempts: int
    interval: float = 0.0  #: before the second attempt
    base: float = 1.0  #: factor from each delay to the next
    max_interval: float = 0.0  #: upper bound of a delay before jitter; 0: none
    jitter: float = 0.0  #: largest addition to a delay

    def delay(self, failed_attempts: int, jitter: float) -> float:
        """Return the seconds to wait after this many failed attempts; `jitter`, in [0, 1), only adds to them."""
        try:
            seconds = self.interval * self.base ** (failed_attempts - 1) if self.base else self.interval
        except OverflowError:
            seconds = LONGEST_PAUSE
        if self.max_interval:
            seconds = min(seconds, self.max_interval)
        return min(seconds + self.jitter * jitter, LONGEST_PAUSE)


class Rate(NamedTuple):
    """The largest number of starts in any window of this many seconds."""

    starts: int
    seconds: float


class SharedLimit(NamedTuple):
    """A limit that functions share by its name, with the figures that one of them declares."""

    name: str
    rate: Rate | None = None
    max_concurrency: int = 0  #: nodes of all its functions that are claimed at once; 0: any number


@dataclass(frozen=True, slots=True)
class Function:
    """The function that a node runs, and its rules; nodes share one record."""

    name: str
    hash: str
    queue: str
    taint: str = ""
    retry: RetryPolicy | None = None
    is_async: bool = False
    protocol: WireProtocol = WireProtocol.V1
    timeout: float = 0.0  #: seconds that an attempt may take; 0: unlimited
    queue_timeout: float = 0.0  #: seconds that a node may be queued before it fails; 0: forever
    priority: int = 0  #: within its instance; higher goes first
    max_concurrency: int = 0  #: nodes claimed at once, by all workers; 0: any number
    delay: float = 0.0  #: seconds between being ready and the first run
    max_deaths: int = 0  #: child processes that end while they run a node, before it fails; 0: the broker's default
    stream_children: bool = False  #: child nodes are visible at once, and cancelled if the attempt fails
    timeout_is_final: bool = False  #: an attempt that was stopped at its timeout is not retried
    key_id: str = ""  #: the signing key of its nodes' arguments, in hexadecimal; empty: they are unsigned
    class_code: str = ""  #: hashes of all methods of its class, which nodes made by its runs are bound to; opaque here
    #: the signing key of the rebindings that allow its nodes to be run by this code, in hexadecimal; empty: they were
    #: made with it
    rebound_under: str = ""
    rate: Rate | None = None  #: of starts, of all functions with this name together
    rate_by_key: bool = False  #: the rate holds for each key, and not for nodes with any key together
    concurrency_of_all: bool = False  #: `max_concurrency` counts nodes with any key together, and not for each key
    limit: SharedLimit | None = None
    cached: bool = False  #: equal calls share one value, see `scheduler/caching.py`
    cache_ttl: float = 0.0  #: seconds after which a cached value is not used again; 0: no limit

    @property
    def is_limited(self) -> bool:
        """Whether it has a limit that is counted beyond one of its queues."""
        return self.rate is not None or self.limit is not None or self.concurrency_of_all

    @property
    def code(self) -> str:
        """The code that the arguments of its nodes are signed for."""
        return f"{self.hash} {self.class_code}" if self.class_code else self.hash


class EarlierFailure(NamedTuple):
    """Why an attempt before the last one failed."""

    type: str
    message: str
    traceback: str
    ended: float = 0.0  #: seconds since 1970
    microseconds: int = 0  #: how long it ran; 0: unknown
    worker: str = ""  #: name of the worker that ran it


class Failure(NamedTuple):
    """Why a node failed; stored with the node itself, and shared by its descendants."""

    function: str
    type: str
    message: str
    traceback: str
    exception: bytes  #: pickled by the worker, if possible; never opened here
    attempts: int
    earlier: tuple[EarlierFailure, ...] = ()  #: of earlier attempts, oldest first
    ended: float = 0.0  #: seconds since 1970: when the last attempt ended
    microseconds: int = 0  #: how long it ran; 0: unknown
    worker: str = ""  #: name of the worker that ran it; empty: none did

    def after(self, packed: bytes | None) -> Failure:
        """Return this failure with the one before added to it, if there is one; only the last few are kept."""
        if packed is None:
            return self
        before = Failure.unpacked(packed)
        traceback = before.traceback[-MAX_EARLIER_TRACEBACK_CHARS:]
        last = EarlierFailure(before.type, before.message, traceback, before.ended, before.microseconds, before.worker)
        return self._replace(earlier=(*before.earlier, last)[-MAX_EARLIER_FAILURES:])

    def packed(self) -> bytes:
        return json.dumps([*self[:4], b64encode(self.exception).decode(), *self[5:]]).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> Failure:
        failure = cls(*json.loads(data))
        earlier = tuple(EarlierFailure(*each) for each in failure.earlier)
        return failure._replace(exception=b64decode(failure.exception), earlier=earlier)


class Rebinding(NamedTuple):
    """The content of a signed rebinding. The broker holds no key: it does what this says, and workers check it."""

    function: str  #: its name
    made_with: frozenset[str]  #: codes, as `Function.code`
    hash: str  #: of the code that may run the nodes; empty: the code that is deployed when they are granted
    instance: bytes  #: only nodes of this one; empty: of all instances
    key_id: str  #: of the key that signed it, in hexadecimal
    signed: bytes  #: the signed message, as it came


# --- keys ---------------------------------------------------------------------------------------------


def pack_keys(keys: Sequence[int]) -> bytes:
    """Return keys as rows hold them: little-endian 64-bit integers."""
    return pack(f"<{len(keys)}q", *keys)


def unpack_keys(packed: bytes) -> tuple[int, ...]:
    """Return the keys that `pack_keys` has packed."""
    return unpack(f"<{len(packed) // 8}q", packed) if packed else ()
