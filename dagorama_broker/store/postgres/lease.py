"""The lease of the leader: the row that says which broker may commit, by the server's clock.

A broker takes the lease if the leader has given it up, has not renewed it in time, or has lost the session that renews
it. It then ends the sessions of the old leader, because one that was stopped within a transaction would hold its rows,
and raises the epoch: no later commit of the old leader passes `fence`.
"""

from __future__ import annotations

import os
import socket
import time
from typing import NamedTuple

from dagorama_broker.errors import StoreError
from dagorama_broker.store.postgres.connection import Session

#: Seconds for which the leader's session must be gone, and for which the server must be up before that counts: after
#: a restart of the server, the leader needs a moment to connect again.
GONE = 0.5
SETTLED = 5.0
#: A new timeline of the server adds this to the epoch, because a failover may have lost the latest epochs.
FAILOVER = 1_000
#: A renewal does not wait for the server's disk, which may be busy for longer than a lease. If a crash of the server
#: loses it, the lease ends earlier.
_NOT_SYNCED = "BEGIN; SET LOCAL synchronous_commit = off"
#: Commits whose numbers are kept.
_KEPT = 10

_TIMELINE = "left(pg_walfile_name(pg_current_wal_lsn()), 8)"
_SEEN = (
    "SELECT epoch, timeline, holder, address, until < clock_timestamp(),"
    " extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8,"
    " lease_pid IS NOT NULL AND EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = lease_pid"
    " AND backend_start = lease_started), extract(epoch FROM renewed)::float8 FROM leader"
)
_END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity, leader WHERE epoch = ? AND pid != pg_backend_pid()"
    " AND ((pid = lease_pid AND backend_start = lease_started)"
    " OR (pid = writer_pid AND backend_start = writer_started))"
)
_UNTIL = "clock_timestamp() + make_interval(secs => ?)"
_STARTED = "(SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())"
_TAKE = (
    f"UPDATE leader SET epoch = ?, timeline = {_TIMELINE}, holder = ?, address = ?, until = {_UNTIL},"
    " renewed = clock_timestamp(), lease_pid = pg_backend_pid(), writer_pid = NULL, writer_started = NULL,"
    f" lease_started = {_STARTED} WHERE epoch = ?"
)
_RENEW = (
    f"UPDATE leader SET until = {_UNTIL}, renewed = clock_timestamp(), lease_pid = pg_backend_pid(),"
    f" lease_started = {_STARTED} WHERE epoch = ?"
)
_WRITES = f"UPDATE leader SET writer_pid = pg_backend_pid(), writer_started = {_STARTED} WHERE epoch = ?"
_RESIGN = "UPDATE leader SET until = clock_timestamp(), lease_pid = NULL WHERE epoch = ?"
_TIDY = "DELETE FROM commits WHERE epoch < ? OR sequence <= (SELECT max(sequence) FROM commits WHERE epoch = ?) - ?"


class Leader(NamedTuple):
    """The row of the leader, as another broker sees it."""

    epoch: int
    timeline: str
    holder: str
    address: str
    is_over: bool  #: it gave the lease up, or did not renew it in time
    server_seconds: float  #: since the server has started
    is_connected: bool
    renewed: float  #: seconds since 1970


def read_leader(session: Session) -> Leader:
    """Return who leads, or has led last. Raise StoreError if the row that says so was deleted."""
    for row in session.execute(_SEEN).fetchall():
        return Leader(*row)
    raise StoreError("the row of table leader is missing: restore a copy, or choose another schema")


class Vacancy:
    """Finds out whether the lease may be taken, from what is seen of the leader again and again."""

    def __init__(self) -> None:
        self._epoch = -1
        self._gone_since: float | None = None

    def is_free(self, seen: Leader) -> bool:
        """Return whether the leader of this moment may be replaced."""
        may_be_there = seen.is_connected or seen.server_seconds < SETTLED
        if seen.epoch != self._epoch or may_be_there:
            self._epoch, self._gone_since = seen.epoch, None
        if seen.is_over or may_be_there:
            return seen.is_over
        self._gone_since = self._gone_since or time.monotonic()
        return time.monotonic() - self._gone_since >= GONE


def take_lease(session: Session, seen: Leader, seconds: float, address: str) -> int | None:
    """Become the leader after this one; return the new epoch, or None if another broker was faster.

    Call it in a transaction, which decides.
    """
    (timeline,) = session.execute(f"SELECT {_TIMELINE}").fetchall()[0]
    epoch = seen.epoch + (FAILOVER if seen.epoch and seen.timeline != timeline else 1)
    taken = session.execute(_TAKE, (epoch, holder_name(), address, seconds, seen.epoch)).rowcount
    return epoch if taken else None


def end_sessions(session: Session, epoch: int) -> None:
    """End the sessions of the broker that led in this epoch, if there are any."""
    session.execute(_END_SESSIONS, (epoch,))


def renew_lease(session: Session, epoch: int, seconds: float) -> bool:
    """Prolong the lease; return whether this broker still leads."""
    with session.transaction(_NOT_SYNCED):
        leads = session.execute(_RENEW, (seconds, epoch)).rowcount == 1
        if leads:
            session.execute(_TIDY, (epoch, epoch, _KEPT))
    return leads


def note_writer(session: Session, epoch: int) -> bool:
    """Record the session that commits; return whether this broker still leads."""
    return session.execute(_WRITES, (epoch,)).rowcount == 1


def raise_epoch(session: Session, epoch: int, to: int) -> bool:
    """Raise the epoch of the leader, who can commit nothing from then on; return whether this broker led."""
    return session.execute("UPDATE leader SET epoch = ? WHERE epoch = ?", (to, epoch)).rowcount == 1


def resign(session: Session, epoch: int) -> None:
    """Give the lease up, so that another broker may take it at once."""
    session.execute(_RESIGN, (epoch,))


def holder_name() -> str:
    """Return what people should see of this process."""
    return f"{socket.gethostname()}, process {os.getpid()}"
