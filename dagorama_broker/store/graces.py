"""Since when large values may be unreferenced, and which of them may be removed by now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Lock


class Graces:
    """The grace periods of one store's values. The caller of any method holds `lock`."""

    def __init__(self) -> None:
        self.lock = Lock()
        #: since when a value may be unreferenced, for the values of which that is possible; longest first
        self._since: dict[bytes, float] = {}

    def restart(self, sha256: bytes) -> None:
        """Begin the grace period of a value again."""
        self._since.pop(sha256, None)
        self._since[sha256] = time.monotonic()

    def begin(self, values: Iterable[bytes]) -> None:
        """Begin the grace periods of values that have none now."""
        now = time.monotonic()
        for sha256 in values:
            self._since.setdefault(sha256, now)

    def collect(
        self,
        grace: float,
        most: int,
        is_wanted: Callable[[bytes], bool],
        is_named: Callable[[bytes], bool],
        drop: Callable[[bytes], None],
    ) -> bool:
        """Drop up to `most` values that were unreferenced for `grace` seconds; return whether there may be more.

        Values that are `is_wanted` get another grace period; values that are `is_named` are not considered again until
        `begin` is called with them.
        """
        now = time.monotonic()
        old = self._older_than(now - grace, most)
        for sha256 in old:
            wanted = is_wanted(sha256)
            named = not wanted and is_named(sha256)  # may raise: then the next call considers the value again
            del self._since[sha256]
            if wanted:
                self._since[sha256] = now
            elif not named:
                drop(sha256)
        return len(old) == most

    def _older_than(self, time: float, most: int) -> list[bytes]:
        old: list[bytes] = []
        for sha256, since in self._since.items():
            if since > time or len(old) == most:
                break
            old.append(sha256)
        return old
