"""The watermark: a broker whose process has grown to it takes no more submissions until it holds less.

What workers report goes on: it is what makes room.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from dagorama_broker.errors import Full

#: Of what a machine or container has, the share that a broker may come to take.
SHARE = 0.8
#: A process whose live nodes take less than this share of the watermark has room inside that it will use again.
IDLE_SHARE = 8
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_STATM = "/proc/self/statm"


class Memory:
    def __init__(self, most: int, held: Callable[[], int], resident: Callable[[], int] | None = None) -> None:
        """`most` resident bytes, 0 for a share of what there is; `held` says how many live nodes take, roughly."""
        self.most = most or int(available() * SHARE)
        self._held = held
        self._resident = resident or (resident_bytes if Path(_STATM).exists() else held)

    def check(self) -> None:
        """Raises Full where a submission has to wait."""
        if self._held() <= self.most // IDLE_SHARE:
            return  # this is reckoned at once; asking the system is a good part of what a submission costs
        if (resident := self._resident()) > self.most:
            raise Full(
                f"the broker takes {resident >> 20} MiB of memory, more than the {self.most >> 20} MiB from which it"
                " takes no submissions (DAGORAMA_MAX_MEMORY); try again when workers have made room"
            )


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
