"""The connected workers: what each of them is told next, and the end of the streams of lost ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dagorama_broker.engine.worker_session import Session
from dagorama_broker.errors import FailedPrecondition
from dagorama_broker.scheduler import Effects, Granted, Scheduler, Worker

log = logging.getLogger("dagorama_broker")

#: Seconds between two searches for the streams of lost workers.
LOOK = 1.0


class Sessions(dict[Worker, Session]):
    """The sessions of workers that are connected by a stream."""

    def __init__(self) -> None:
        super().__init__()
        self._look_at = 0.0

    def awake(self, worker: Worker) -> Session | None:
        """Return the session of a worker, and wake it; None: the worker is gone."""
        session = self.get(worker)
        if session is not None:
            session.wake()
        return session

    def grant(self, granted: Iterable[Granted]) -> bool:
        """Send grants; return whether all are sent already."""
        return self._send(self._add(granted))

    def tell(self, effects: Effects, grants: Iterable[Granted]) -> None:
        """Tell workers what has been decided about them and their nodes; `grants`: what they were not told."""
        told = self._add(grants)
        for taken in effects.take_back:
            if (session := self.get(taken.slot.worker)) is not None:
                session.news.take_back.append(taken)
                told[session] = None
        for worker, attempt in effects.refused:
            if (session := self.get(worker)) is not None:
                session.news.refused.append(attempt)
                told[session] = None
        for worker, attempt in effects.cancelled:
            if (session := self.get(worker)) is not None:
                session.news.cancelled.append(attempt)
                told[session] = None
        for worker in effects.done:
            if (session := self.get(worker)) is not None:
                session.news.done = True
                session.news.left = effects.left[worker]
                told[session] = None
        self._send(told)

    def _add(self, granted: Iterable[Granted]) -> dict[Session, None]:
        """Add grants to the news; return the sessions that have some, in the order of their first ones."""
        told: dict[Session, None] = {}
        for grant in granted:
            if (session := self.get(grant.slot.worker)) is not None:
                session.news.granted.append(grant)
                told[session] = None
        return told

    def _send(self, told: Iterable[Session]) -> bool:
        are_sent = True
        for session in told:
            are_sent = session.send() and are_sent
        return are_sent

    def hang_up_on_lost(self, scheduler: Scheduler) -> None:
        """End the streams of workers whose lease ran out: a client that neither sends nor reads would keep one."""
        if scheduler.now < self._look_at:
            return
        self._look_at = scheduler.now + LOOK
        for worker, session in self.items():
            if not scheduler.is_connected(worker) and not session.over:
                log.info("worker %r was lost: it was silent for longer than its lease", worker.info.name)
                session.end(FailedPrecondition("this worker was silent for longer than its lease: connect again"))
