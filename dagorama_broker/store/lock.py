"""One broker to a store: a lock that goes with the process that holds it, however that process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from dagorama_broker.errors import StoreError


class StoreLock:
    """Holds `<store>.lock`, whose content is the holder's pid. The file stays; the lock on it does not."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._descriptor: int | None = None

    def take(self) -> None:
        """Raises StoreError naming the pid of the broker that has the store."""
        descriptor = os.open(f"{self._store}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise StoreError(
                f"{self._store} is in use by another broker (pid {holder}): stop that one, or choose another store"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
