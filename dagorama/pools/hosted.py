"""A worker next to a process of an engine, such as a Dask worker, which ends when that process ends in any way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from weakref import WeakSet

from dagorama.pools.worker_spec import LAST_REPORTS_S, WorkerSpec
from dagorama.user_code.modules import absolute_path


class HostedWorker:
    """A running `worker` process and the lifeline by which it notices that this process is gone.

    It can import the modules that this process can import.
    """

    def __init__(self, spec: WorkerSpec, member: str) -> None:
        """Start it. Raises OSError if the system refuses the process."""
        self._patience = spec.grace + LAST_REPORTS_S
        reading, self._lifeline = os.pipe()
        _all.add(self)
        command = [sys.executable, "-m", "dagorama.worker", *spec.flags(), "--name", spec.name_of(member)]
        path = {"PYTHONPATH": os.pathsep.join(absolute_path())}
        try:
            self._process = subprocess.Popen(
                [*command, "--lifeline", f"{reading}"], env={**os.environ, **path, **spec.environment},
                stdin=subprocess.DEVNULL, pass_fds=[reading], start_new_session=True,
            )  # fmt: skip
        except BaseException:
            self.let_go()
            raise
        finally:
            os.close(reading)

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def drain(self) -> None:
        """Tell it to leave: running nodes get the grace period, and others go back to the broker."""
        self._process.send_signal(signal.SIGTERM)  # no effect after its end

    def wait(self) -> int:
        """Wait until it has ended for any reason, and return its exit code."""
        return self._process.wait()

    def join(self) -> int:
        """After `drain`, wait until it has left, and return its exit code; end it if it does not leave in time."""
        try:
            return self._process.wait(self._patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Close the lifeline: a worker that still runs ends at once."""
        lifeline, self._lifeline = self._lifeline, -1
        if lifeline >= 0:
            with suppress(OSError):
                os.close(lifeline)


_all: WeakSet[HostedWorker] = WeakSet()


def _forget() -> None:
    """In a fork of the host, close the lifelines: otherwise the fork would hold them when the host is gone."""
    for worker in list(_all):
        worker.let_go()


os.register_at_fork(after_in_child=_forget)
