"""The process whose forks are the brokers of `tests.support.brokers`. It has imported the broker, and started nothing.

A request on its socket brings the arguments and the environment of a broker, and four descriptors: a pipe on which the
nursery tells the process id of the fork and then its exit code, the fork's stderr, and two pipes that it inherits. The
nursery ends when the other end of its socket is closed; its brokers have a lifeline of their own.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from select import POLLIN, poll
from typing import Any

from tests.support.brokers import LARGEST

#: What a broker imports until it serves.
IMPORTS = ("dagorama_broker.cli", "dagorama_broker.server", "dagorama_broker.store.sqlite.store")


class Nursery:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = poll()
        self._poll.register(control, POLLIN)
        self._forks: dict[int, tuple[int, int]] = {}  #: by descriptor of a process, its id and the pipe to report on

    def run(self) -> dict[str, Any] | None:
        """Serve until the other end is closed. In a fork return the request for it, and None in the nursery."""
        while True:
            for ready, _ in self._poll.poll():
                if ready != self._control.fileno():
                    self._report(ready)
                    continue
                request, descriptors, _, _ = socket.recv_fds(self._control, LARGEST, 4)
                if not request:
                    return None
                if self._fork(*descriptors):
                    wanted: dict[str, Any] = json.loads(request)
                    _become(wanted, *descriptors[1:])
                    return wanted

    def _fork(self, report: int, *inherited: int) -> bool:
        """Fork, and return whether this is the fork."""
        pid = os.fork()
        if not pid:
            self._leave(report)
            return True
        for descriptor in inherited:
            os.close(descriptor)
        os.write(report, b"%d\n" % pid)
        process = os.pidfd_open(pid)
        self._forks[process] = pid, report
        self._poll.register(process, POLLIN)
        return False

    def _leave(self, report: int) -> None:
        """Close in a fork what belongs to the nursery."""
        self._control.close()
        os.close(report)
        for process, (_, other) in self._forks.items():
            os.close(process)
            os.close(other)

    def _report(self, process: int) -> None:
        """Tell how a fork has ended."""
        self._poll.unregister(process)
        os.close(process)
        pid, report = self._forks.pop(process)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with open(report, "w") as said, suppress(BrokenPipeError):
            print(code, file=said, flush=True)


def _become(wanted: dict[str, Any], stderr: int, *pipes: int) -> None:
    """Give this fork the session, the environment, the standard streams and the pipes of a broker."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor, number in ((nothing, 0), (nothing, 1), (stderr, 2)):
        os.dup2(descriptor, number)
    os.close(nothing)
    os.close(stderr)
    for place, pipe in zip(wanted["places"], pipes, strict=True):
        wanted["arguments"][place] = str(pipe)


if __name__ == "__main__":
    for name in IMPORTS:
        import_module(name)
    # Ctrl-C is for the tests, whose end is the nursery's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # a fork that collects garbage would copy all of its memory
    if wanted := Nursery(socket.socket(fileno=int(sys.argv[1]))).run():
        import_module(wanted["program"]).main(wanted["arguments"], prog_name="dagorama-broker")
