"""How much memory the broker may take: calls reserve what they are going to take before they take it.

What workers report is not asked, for it is what makes room.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from dagorama_broker.errors import Full, TooMuch
from dagorama_broker.rpc.limits import share

#: Of what a machine or container has, the share that a broker may come to take.
SHARE = 0.8
#: A process that holds less than this share of the bound has room inside that it will use again.
IDLE_SHARE = 8
#: Bytes of a reservation that is made even if there is no room: who waits for a node waits for what makes room.
SMALL = 16 << 10
#: The system is asked how large the process is after so many seconds, or so many bytes of new reservations.
ASK_AFTER, ASK_FOR = 0.05, 8 << 20
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_STATM = "/proc/self/statm"


class Memory:
    """What the broker holds, what calls have reserved, and how large the process is."""

    def __init__(self, most: int, held: Callable[[], int], resident: Callable[[], int] | None = None) -> None:
        """Allow `most` bytes, 0 for a share of what there is; `held` says how much the broker holds, roughly."""
        self.most = most_memory(most)
        self.reserved = 0
        self._held = held
        self._resident = resident or (resident_bytes if Path(_STATM).exists() else held)
        self._reserved_by: dict[str, int] = {}
        self._known = 0  # the size of the process when the system was asked last
        self._ask_at = 0.0
        self._unasked = 0  # bytes reserved since

    def check(self, cost: int = 0, whose: str = "", already: int = 0) -> None:
        """Raise Full if a call has to wait before it takes `cost` bytes more; TooMuch if it can never have them.

        `whose`: who is given a share; `already`: what the same call has reserved.
        """
        most_of_one = share(self.most)
        if already + cost > most_of_one:
            raise TooMuch(
                f"this call would take about {_mib(already + cost)} MiB of the broker's memory, and one call is given"
                f" at most {_mib(most_of_one)} MiB (DAGORAMA_MAX_MEMORY); send it in several smaller ones"
            )
        used = self._held() + self.reserved
        if used + cost > self.most:
            raise self._full(used + cost)
        if self._reserved_by and self._reserved_by.get(whose, 0) + cost > most_of_one:
            raise Full(
                f"this caller's calls have reserved {_mib(self._reserved_by[whose])} MiB of memory, which is its share"
                " of DAGORAMA_MAX_MEMORY; try again when some of them have ended"
            )
        # Only if the broker holds something: a process does not get smaller by itself.
        if used > self.most // IDLE_SHARE and (resident := self._size(cost)) > self.most:
            raise self._full(resident)

    def hold(self, cost: int, whose: str = "", *, is_small_ok: bool = False) -> Reservation:
        """Reserve memory until the returned context ends. Raises Full or TooMuch.

        `is_small_ok`: it is given without a check if it is small.
        """
        reservation = Reservation(self, whose)
        if is_small_ok and cost <= SMALL:
            reservation.take(cost)
        else:
            reservation.add(cost)
        return reservation

    def change(self, cost: int, whose: str) -> None:
        """Book a reservation of this caller, or one that has ended."""
        self.reserved += cost
        left = self._reserved_by.get(whose, 0) + cost
        if left:
            self._reserved_by[whose] = left
        else:
            self._reserved_by.pop(whose, None)

    @property
    def is_idle(self) -> bool:
        """Whether the process is much larger than what the broker holds, and that matters."""
        resident = self._resident()
        return resident > self.most // 2 and resident - self._held() - self.reserved > self.most // 8

    def _size(self, cost: int) -> int:
        """The size of the process, as of a moment ago."""
        now = time.monotonic()
        self._unasked += cost
        if now >= self._ask_at or self._unasked >= ASK_FOR:
            self._known, self._ask_at, self._unasked = self._resident(), now + ASK_AFTER, 0
        return self._known

    def _full(self, size: int) -> Full:
        return Full(
            f"the broker takes {_mib(size)} MiB of memory, more than the {_mib(self.most)} MiB from which it"
            " takes no submissions (DAGORAMA_MAX_MEMORY); try again when workers have made room"
        )


class Reservation:
    """Memory that one call has reserved; it may grow, and ends with the context."""

    __slots__ = ("_memory", "_whose", "size")

    def __init__(self, memory: Memory, whose: str) -> None:
        self._memory, self._whose = memory, whose
        self.size = 0

    def add(self, cost: int) -> None:
        """Reserve more. Raises Full or TooMuch, and then nothing has changed."""
        self._memory.check(cost, self._whose, self.size)
        self.take(cost)

    def take(self, cost: int) -> None:
        """Reserve more, whether there is room or not."""
        self._memory.change(cost, self._whose)
        self.size += cost

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.change(-self.size, self._whose)
        self.size = 0


def most_memory(setting: int) -> int:
    """Bytes that the broker may take: the setting, or if that is 0 a share of what there is."""
    return setting or int(available() * SHARE)


def _mib(size: int) -> int:
    return size >> 20


def resident_bytes() -> int:
    """What this process takes of the machine's memory now."""
    with open(_STATM, "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def available() -> int:
    """Bytes of memory of this machine or container."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, _LIMITS):
        text = path.read_text().strip() if path.exists() else ""
        if text.isdecimal():
            found.append(int(text))
    return min(found)
