"""Finds sessions that keep an old snapshot of the database, which keeps the server from removing deleted rows.

A backup that takes hours, or a console that was forgotten within a transaction, lets the tables grow and makes them
slower, without an error anywhere. The broker warns about the oldest one.
"""

from __future__ import annotations

import logging
import time

from dagorama_broker.store.postgres.connection import Session

log = logging.getLogger("dagorama_broker")

#: Age of a snapshot from which it is warned about, seconds between two looks, and between two warnings of a session.
OLD, LOOK, AGAIN = 1800.0, 60.0, 3600.0
_OLDEST = (
    "SELECT pid, coalesce(usename, 'unknown'), coalesce(application_name, ''),"
    " extract(epoch FROM clock_timestamp() - xact_start)::float8 FROM pg_stat_activity WHERE backend_xmin IS NOT NULL"
    " AND backend_type = 'client backend' AND pid != pg_backend_pid() AND datname = current_database()"
    " AND xact_start <= clock_timestamp() - make_interval(secs => ?) ORDER BY xact_start LIMIT 1"
)


class SnapshotWatch:
    """Looks now and then for the oldest snapshot. A role that may not read other roles' sessions sees its own only."""

    def __init__(self, shown: str) -> None:
        """`shown`: the address of the server, for people."""
        self._shown = shown
        self._look_at = 0.0
        self._warned: dict[int, float] = {}  #: when, by process ID

    def look(self, session: Session) -> None:
        """Warn about the oldest snapshot if it is time to look, and it is old."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK
        for pid, user, application, seconds in session.execute(_OLDEST, (OLD,)).fetchall():
            if now < self._warned.get(pid, -AGAIN) + AGAIN:
                return
            self._warned = {pid: now}
            log.warning(
                "%s: process %d of the server (user %s, application %r) has kept a snapshot for %.0f minutes; until its"
                " transaction ends, deleted rows are not removed and the tables grow",
                self._shown, pid, user, application, seconds / 60,
            )  # fmt: skip
