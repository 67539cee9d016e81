"""Limits the broker's memory: calls reserve memory before they use it.

Reports of workers are not limited, because they are what releases memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from dagorama_broker.errors import Overloaded, ResourceExhausted
from dagorama_broker.rpc.limits import share

#: The share of a machine's or container's memory that a broker may use.
SHARE = 0.8
#: A process that holds less than one in this number of the limit's bytes will reuse freed memory.
IDLE_SHARE = 8
#: Bytes of a reservation that never fails: a caller that waits for a node waits for what releases memory.
SMALL = 16 << 10
#: The system is asked for the size of the process after this number of seconds, or of bytes of new reservations.
ASK_AFTER, ASK_FOR = 0.05, 8 << 20
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_STATM = "/proc/self/statm"


class MemoryGuard:
    """Knows what the broker holds, what calls have reserved, and how large the process is."""

    def __init__(self, most: int, held: Callable[[], int], resident: Callable[[], int] | None = None) -> None:
        """Allow `most` bytes, 0 for a share of all memory; `held` returns roughly how much the broker holds."""
        self.most = most_memory(most)
        self.reserved = 0
        self._held = held
        self._resident = resident or (resident_bytes if Path(_STATM).exists() else held)
        self._reserved_by: dict[str, int] = {}
        self._known = 0  # the size of the process when the system was asked last
        self._ask_at = 0.0
        self._unasked = 0  # bytes reserved since

    def check(self, cost: int = 0, whose: str = "", already: int = 0) -> None:
        """Raise Overloaded if a call must wait to use `cost` more bytes, ResourceExhausted if it can never have them.

        `whose`: the caller, who gets a share; `already`: bytes that the same call has reserved.
        """
        most_of_one = share(self.most)
        if already + cost > most_of_one:
            raise ResourceExhausted(
                f"this call would use about {_mib(already + cost)} MiB of the broker's memory, and one call may use at"
                f" most {_mib(most_of_one)} MiB (DAGORAMA_MAX_MEMORY); send several smaller calls"
            )
        used = self._held() + self.reserved
        if used + cost > self.most:
            raise self._full(used + cost)
        if self._reserved_by and self._reserved_by.get(whose, 0) + cost > most_of_one:
            raise Overloaded(
                f"this caller's calls have reserved {_mib(self._reserved_by[whose])} MiB of memory, which is its share"
                " of DAGORAMA_MAX_MEMORY; retry when some of them have ended"
            )
        # Only if the broker holds something: a process does not get smaller by itself.
        if used > self.most // IDLE_SHARE and (resident := self._size(cost)) > self.most:
            raise self._full(resident)

    def hold(self, cost: int, whose: str = "", *, is_small_ok: bool = False) -> Reservation:
        """Reserve memory until the returned context ends. Raise Overloaded or ResourceExhausted.

        `is_small_ok`: do not check a small reservation.
        """
        reservation = Reservation(self, whose)
        if is_small_ok and cost <= SMALL:
            reservation.take(cost)
        else:
            reservation.add(cost)
        return reservation

    def change(self, cost: int, whose: str) -> None:
        """Note a reservation of this caller, or a negative `cost` when one has ended."""
        self.reserved += cost
        left = self._reserved_by.get(whose, 0) + cost
        if left:
            self._reserved_by[whose] = left
        else:
            self._reserved_by.pop(whose, None)

    @property
    def is_idle(self) -> bool:
        """Return whether the process is large, and much larger than what the broker holds."""
        resident = self._resident()
        return resident > self.most // 2 and resident - self._held() - self.reserved > self.most // 8

    def _size(self, cost: int) -> int:
        """Return the size of the process, at most a moment old."""
        now = time.monotonic()
        self._unasked += cost
        if now >= self._ask_at or self._unasked >= ASK_FOR:
            self._known, self._ask_at, self._unasked = self._resident(), now + ASK_AFTER, 0
        return self._known

    def _full(self, size: int) -> Overloaded:
        return Overloaded(
            f"memory limit reached ({_mib(size)} of {_mib(self.most)} MiB, DAGORAMA_MAX_MEMORY); retry when some nodes"
            " have completed"
        )


class Reservation:
    """Memory that one call has reserved; it may grow, and is released at the end of the context."""

    __slots__ = ("_memory", "_whose", "size")

    def __init__(self, memory: MemoryGuard, whose: str) -> None:
        self._memory, self._whose = memory, whose
        self.size = 0

    def add(self, cost: int) -> None:
        """Reserve more. If this raises Full or ResourceExhausted, nothing has changed."""
        self._memory.check(cost, self._whose, self.size)
        self.take(cost)

    def take(self, cost: int) -> None:
        """Reserve more without a check; a negative `cost` releases memory."""
        self._memory.change(cost, self._whose)
        self.size += cost

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.change(-self.size, self._whose)
        self.size = 0


def most_memory(setting: int) -> int:
    """Return the bytes that the broker may use: the setting, or a share of all memory if it is 0."""
    return setting or int(available() * SHARE)


def _mib(size: int) -> int:
    return size >> 20


def resident_bytes() -> int:
    """Return the bytes of the machine's memory that this process uses."""
    with open(_STATM, "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def available() -> int:
    """Return the bytes of memory of this machine or container."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, _LIMITS):
        text = path.read_text().strip() if path.exists() else ""
        if text.isdecimal():
            found.append(int(text))
    return min(found)
