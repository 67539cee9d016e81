"""A process that has imported what brokers or workers import, and has started nothing: its forks are such processes.

A broker or a worker takes several times longer to import than to start. A fork server serves all tests of a process of
pytest. A request on its socket brings the program, its arguments, its environment and folder, and descriptors: a pipe
on which the fork server tells the process ID of the fork and then its exit code, the fork's stdout and stderr, and
others that it inherits. The fork server ends when the other end of its socket is closed.
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

LARGEST = 128 << 10  #: bytes of a request


class ForkServer:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = poll()
        self._poll.register(control, POLLIN)
        self._forks: dict[int, tuple[int, int]] = {}  #: by descriptor of a process, its ID and the pipe to report on

    def run(self) -> dict[str, Any] | None:
        """Serve until the other end is closed. In a fork return the request for it, and None in the fork server."""
        while True:
            for ready, _ in self._poll.poll():
                if ready != self._control.fileno():
                    self._report(ready)
                    continue
                request, descriptors, _, _ = socket.recv_fds(self._control, LARGEST, 8)
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
        """Close in a fork what belongs to the fork server."""
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
        with suppress(BrokenPipeError), open(report, "w") as said:
            print(code, file=said)


def _become(wanted: dict[str, Any], stdout: int, stderr: int, *others: int) -> None:
    """Give this fork the environment, the folder, the streams and the descriptors of its program."""
    if wanted["has_session"]:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if wanted["has_folder"]:
        sys.path.insert(0, wanted["folder"])
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for descriptor, number in ((stdout, 1), (stderr, 2)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for place, other in zip(wanted["places"], others, strict=True):
        wanted["arguments"][place] = str(other)


if __name__ == "__main__":
    _, control, *imports = sys.argv
    for name in imports:
        import_module(name)
    # Ctrl-C is for the tests, whose end is the fork server's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # a fork that collects garbage would copy all of its memory
    if wanted := ForkServer(socket.socket(fileno=int(control))).run():
        module, _, function = wanted["name"].partition(":")
        sys.argv = [wanted["command"] or module, *wanted["arguments"]]
        sys.exit(getattr(import_module(module), function)())
