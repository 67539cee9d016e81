"""Launches a broker in its own process for the length of a block, for scripts and tests.

The broker also ends if this process dies in any way: it holds a pipe whose other end only this process has. Through
another pipe it reports that it is serving, or why it cannot; nothing is polled.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import F_DUPFD_CLOEXEC, fcntl
from json import loads
from secrets import token_urlsafe
from shutil import rmtree
from typing import Any, Protocol
from weakref import WeakSet

from dagorama_broker.environment import DEFAULT_PORT, without_password
from dagorama_monitoring.documentation import documented

HOST = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
MEMORY = "memory://"
KEYS = ("DAGORAMA_SIGNING_KEYS", "DAGORAMA_SIGNING_KEYS_FILE")
#: Variables for a script and the workers that it launches, which a broker must not get.
SECRETS = ("DAGORAMA_AUTH_TOKEN", "DAGORAMA_AUTH_TOKEN_FILE", *KEYS)
#: Seconds that a broker has to restore its store and serve.
START_SECONDS = 60.0
#: Seconds that a broker has to end cleanly after SIGTERM.
STOP_SECONDS = 5.0


class BrokerNotStarted(RuntimeError):
    """The broker could not start; the message is the broker's."""

    __notes__ = documented(__name__)


@contextmanager
def launch_broker(
    port: int = DEFAULT_PORT,
    store: str | None = None,
    *,
    host: str = HOST,
    log_level: str = "WARNING",
    environment: Mapping[str, str] | None = None,
) -> Iterator[LaunchedBroker]:
    """Run a broker for the length of the block, with DAGORAMA_HOST and DAGORAMA_PORT set to its address.

    Port 0 picks a free one. Without a store the broker starts empty and leaves nothing behind; with one it continues
    with its content. `host` is the address to listen on. `environment` has variables for the broker only, such as the
    paths of its tokens and its certificate. Raise BrokerNotStarted if the broker does not start.

    If no signing key is set and no store is given, a new key is set for the block, which the workers of the block
    share. With a store the user's own key is used, because a later block must be able to read the stored values.
    """
    with launched(LaunchedBroker(port, store or MEMORY, log_level, environment or {}, host)) as broker:
        yield broker


@contextmanager
def launched(broker: LaunchedBroker) -> Iterator[LaunchedBroker]:
    """Run this broker for the length of the block, as `launch_broker` does."""
    try:
        broker.start()
        with environment_with(DAGORAMA_HOST=broker.host, DAGORAMA_PORT=f"{broker.port}", **_fresh_key(broker.store)):
            yield broker
    finally:
        broker.stop()


def _load_grpc() -> None:
    """Load gRPC while the broker starts, because a script that launches a broker calls it next."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # otherwise gRPC prints a line when a broker leaves
    import dagorama.api.broker_pb2_grpc  # noqa: F401  # imported only to load it


class Process(Protocol):
    """The part of Popen that a launched broker needs."""

    pid: int

    def wait(self) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class LaunchedBroker:
    """A broker process and its address. Tests kill it and start it again on the same port and store."""

    def __init__(self, port: int, store: str, log_level: str, environment: Mapping[str, str], bind: str = HOST) -> None:
        self.host = HOST if bind in EVERYWHERE else bind
        self._bind = bind
        self.port = port
        self.store = store
        self._log_level = log_level
        self._environment = environment
        self._process: Process | None = None
        self._said: int | None = None  #: the read end of the pipe through which the broker reports
        self._lifeline: int | None = None  #: the write end of a pipe that is never written to
        self._scratch: str | None = None
        _all.add(self)

    def __repr__(self) -> str:
        return f"<broker at {self.address}, store {without_password(self.store)}, pid {self.pid}>"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Return the process ID; None if the broker is not running."""
        return self._process.pid if self._process is not None else None

    # --- starting ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and wait until it serves. Raise BrokerNotStarted if it does not."""
        if self._process is not None:
            raise RuntimeError(f"{self!r} is already running")
        try:
            self._spawn()
            _load_grpc()
            self.port = self._hear()["port"]
        except BaseException:
            self.stop()
            raise

    def _spawn(self) -> None:
        self._scratch = tempfile.mkdtemp(prefix="dagorama-")
        self._said, announce = _pipe()
        lifeline, self._lifeline = _pipe()
        try:
            # Other users see command lines, and the URL may hold a password.
            own = {name: value for name, value in os.environ.items() if name not in SECRETS}
            environment = {**own, "DAGORAMA_STORE": self.store, **self._environment}
            self._process = self._run(self._command(announce, lifeline), environment, (announce, lifeline))
        except OSError as error:
            raise BrokerNotStarted(f"{sys.executable} cannot be started: {error.strerror}") from error
        finally:
            os.close(announce)
            os.close(lifeline)

    def _run(self, command: list[str], environment: dict[str, str], pipes: tuple[int, int]) -> Process:
        """Start a process that inherits the two pipes and stderr."""
        nothing, errors = subprocess.DEVNULL, None if _is_open(2) else subprocess.DEVNULL
        # In a session of its own: Ctrl-C interrupts the script, whose end then ends the broker.
        return subprocess.Popen(
            command, env=environment, stdin=nothing, stdout=nothing, stderr=errors, pass_fds=pipes,
            start_new_session=True,
        )  # fmt: skip

    def _command(self, announce: int, lifeline: int) -> list[str]:
        # -P: do not import files in the script's folder instead of the broker's modules.
        return [
            sys.executable, "-P", "-m", "dagorama_broker", "serve", "--host", self._bind, "--port", f"{self.port}",
            "--log-level", self._log_level, "--log-format", "text",
            "--announce", f"{announce}", "--lifeline", f"{lifeline}", "--scratch", f"{self._scratch}",
        ]  # fmt: skip

    def _hear(self) -> dict[str, Any]:
        """Return what the broker reports when it serves. Raise BrokerNotStarted."""
        line = self._line()
        if not line:
            code = self._process.wait() if self._process is not None else None
            raise BrokerNotStarted(f"the broker exited with code {code} before it served; its stderr may say why")
        said: dict[str, Any] = loads(line)
        if "error" in said:
            raise BrokerNotStarted(said["error"])
        return said

    def _line(self) -> bytes:
        """Return the line that a starting broker reports; empty if it ended without one. Raise BrokerNotStarted."""
        line, deadline = b"", time.monotonic() + START_SECONDS
        while not line.endswith(b"\n"):
            if not self._readable(deadline - time.monotonic()):
                raise BrokerNotStarted(f"the broker did not serve within {START_SECONDS:g} seconds")
            assert self._said is not None
            if not (piece := os.read(self._said, 4096)):
                return b""
            line += piece
        return line

    def _readable(self, seconds: float) -> bool:
        """Return whether the broker reports something, or ends, within this time."""
        assert self._said is not None
        poll = select.poll()
        poll.register(self._said, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    # --- ending -----------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the broker cleanly, or with SIGKILL if it does not react."""
        if self._process is not None:
            self._process.terminate()
            # The broker reports nothing more, so a readable pipe means that it has ended.
            if not self._readable(STOP_SECONDS):
                self._process.kill()
        self._let_go()

    def kill(self) -> None:
        """End the broker with SIGKILL at any point of its work; start() continues with the same store."""
        if self._process is not None:
            self._process.kill()
        self._let_go()

    def restart(self) -> None:
        """Stop the broker and start it on the same port and store."""
        self.stop()
        self.start()

    def _let_go(self) -> None:
        if self._process is not None:
            self._process.wait()
        self._close_pipes()
        if self._scratch is not None:
            rmtree(self._scratch, ignore_errors=True)
        self._process = self._scratch = None

    def _close_pipes(self) -> None:
        for end in (self._said, self._lifeline):
            if end is not None:
                os.close(end)
        self._said = self._lifeline = None

    def forget(self) -> None:
        """Close the pipes in a forked child: the broker belongs to the parent, and ends with it."""
        self._close_pipes()
        self._process = self._scratch = None


_all: WeakSet[LaunchedBroker] = WeakSet()


def _forget_all() -> None:
    for broker in list(_all):
        broker.forget()


os.register_at_fork(after_in_child=_forget_all)


@contextmanager
def fresh_key() -> Iterator[None]:
    """Set a new signing key for the block, unless the environment names one."""
    with environment_with(**_fresh_key(MEMORY)):
        yield


def _fresh_key(store: str) -> dict[str, str]:
    """Return a variable with a new signing key; none if a key is set or the store outlives the block."""
    if store != MEMORY or any(os.environ.get(name) for name in KEYS):
        return {}
    return {KEYS[0]: token_urlsafe(32)}


@contextmanager
def environment_with(**variables: str | None) -> Iterator[None]:
    """Set each variable for the block, or unset it if its value is None; restore all afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    _set_variables(variables)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _pipe() -> tuple[int, int]:
    """Return a pipe whose descriptors are above 2: a child would use lower ones as its standard streams."""
    ends = os.pipe()
    try:
        read, write = (fcntl(end, F_DUPFD_CLOEXEC, 3) for end in ends)
    finally:
        for end in ends:
            os.close(end)
    return read, write


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
