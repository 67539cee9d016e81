"""Sends what running nodes print, log and report once a second, from a thread that exists only if some node does so."""

from __future__ import annotations

import threading
from time import sleep
from weakref import WeakSet

from dagorama.context import STARTED_BY, Log, RunningNode
from dagorama.worker.attempt_log import AttemptLog
from dagorama.worker.child.forks import forget_in_forks
from dagorama.worker.child.outbox import Outbox

FLUSH_INTERVAL_S = 1.0


class LiveLogs:
    """The logs of the running attempts of one process."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._logs: WeakSet[AttemptLog] = WeakSet()
        self._lock = threading.RLock()  # a signal handler may print for the first time
        self._is_needed = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_off = False
        forget_in_forks(self)

    def open(self, run: RunningNode) -> Log:
        """Return a new log for this run, or the one that another of its threads has made meanwhile."""
        assert run.call is not None
        with self._lock:
            if run.log is not None:
                return run.log
            run.log = log = AttemptLog(run.call, run.number, self._outbox, self._wake)
            self._logs.add(log)
            if self._thread is None and not self._is_off:
                self._start()
        return log

    def close(self) -> None:
        """End the thread."""
        self._is_off = True
        self._is_needed.set()

    def forget(self) -> None:
        """In a fork, whose parent process owns the outbox, send nothing."""
        self._is_off = True

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._live, name="dagorama-logs", daemon=True)
        self._thread.start()
        self._thread.__dict__.pop(STARTED_BY, None)  # it belongs to no node

    def _wake(self) -> None:
        if not self._is_needed.is_set():
            self._is_needed.set()

    def _live(self) -> None:
        while self._is_needed.wait() and not self._is_off:
            self._is_needed.clear()
            sleep(FLUSH_INTERVAL_S)
            with self._lock:
                logs = list(self._logs)
            for log in logs:
                log.flush()
                if log.is_waiting:
                    self._wake()
            self._outbox.flush()
