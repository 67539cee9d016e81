"""Takes the lease, renews it while the broker leads, and gives it up at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from dagorama_broker.errors import Deposed, StoreError
from dagorama_broker.store.postgres.connection import Session
from dagorama_broker.store.postgres.database import REPLACED, Ending, Line
from dagorama_broker.store.postgres.lease import (
    Leader,
    Vacancy,
    end_sessions,
    raise_epoch,
    read_leader,
    renew_lease,
    resign,
    take_lease,
)
from dagorama_broker.store.postgres.snapshots import SnapshotWatch

log = logging.getLogger("dagorama_broker")

#: Seconds between two looks of a broker that waits for the lease.
LOOK = 0.1
#: Parts of the lease after which it is renewed, and after which a lease that was not renewed no longer counts.
_RENEWED_AFTER, _DOUBTED_AFTER = 1 / 3, 5 / 6


class Keeper:
    """The lease of one broker."""

    def __init__(self, line: Line, seconds: float, address: str, ending: Ending, waits: bool) -> None:
        """`address`: where people find this broker; `waits`: whether `take` waits for a leader to leave."""
        self._waits = waits
        self._line = line
        self._seconds = seconds
        self._address = address
        self._ending = ending
        self._snapshots = SnapshotWatch(repr(line))
        self._epoch = 0
        self._confirmed = 0.0
        self._thread: threading.Thread | None = None
        self.predecessor: Leader | None = None  #: who led before

    @property
    def is_sure(self) -> bool:
        """Whether no other broker can lead at this moment, as far as the server has confirmed it."""
        return time.monotonic() - self._confirmed < self._seconds * _DOUBTED_AFTER

    def take(self, prepare: Callable[[Session], None]) -> int:
        """Wait until this broker leads; return its epoch. `prepare` is called in the transaction that takes the lease.

        Raise StoreError if the store cannot be used, or is closed meanwhile.
        """
        vacancy, told = Vacancy(), -1
        while True:
            started = time.monotonic()
            seen = self._line.run(read_leader)
            if vacancy.is_free(seen):
                epoch = self._line.run(partial(self._take, seen=seen, prepare=prepare))
                if epoch is not None:
                    self._epoch, self._confirmed, self.predecessor = epoch, started, seen
                    return epoch
            elif not self._waits and seen.is_connected:
                raise StoreError(f"a broker uses it: {seen.holder}; stop it first")
            elif told != seen.epoch:
                told = seen.epoch
                log.info("waiting as a standby: %s leads (%s, epoch %d)", seen.holder, seen.address, seen.epoch)
            if self._ending.near.wait(LOOK):
                raise StoreError("the broker was stopped while it waited for its turn")

    def _take(self, session: Session, seen: Leader, prepare: Callable[[Session], None]) -> int | None:
        end_sessions(session, seen.epoch)
        with session.transaction():
            epoch = take_lease(session, seen, self._seconds, self._address)
            if epoch is not None:
                prepare(session)
        return epoch

    def continue_after(self, epoch: int) -> None:
        """Make the next epoch larger than this one."""
        if epoch > self._epoch and self._line.run(lambda session: raise_epoch(session, self._epoch, epoch)):
            self._epoch = epoch

    def keep(self, lost: Callable[[StoreError], None]) -> None:
        """Renew the lease in a thread until `close`; call `lost` there if that cannot be done."""
        self._thread = threading.Thread(target=self._keep, args=(lost,), name="lease", daemon=True)
        self._thread.start()

    def _keep(self, lost: Callable[[StoreError], None]) -> None:
        try:
            while not self._ending.closed.wait(self._seconds * _RENEWED_AFTER):
                self._renew()
        except StoreError as error:
            if not self._ending.near.is_set():
                lost(error)

    def _renew(self) -> None:
        started: list[float] = []

        def renew(session: Session) -> bool:
            started.append(time.monotonic())
            return renew_lease(session, self._epoch, self._seconds)

        if not self._line.run(renew):
            raise Deposed(REPLACED)
        self._confirmed = started[-1]
        self._line.run(self._snapshots.look)

    def close(self) -> None:
        """Give the lease up, if this broker has it; the ending must be closed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._epoch:
            self._line.last(lambda session: resign(session, self._epoch))
            self._epoch = 0
        self._line.close()
