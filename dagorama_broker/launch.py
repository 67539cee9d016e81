"""A broker in a process of its own, for scripts and tests: there when the block starts, gone when it ends.

It is gone as well when this process dies in whatever way: it holds a pipe whose other end is here alone. It is told
through another pipe, at once, that the broker serves or why it cannot; nothing is polled.
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
from typing import Any
from weakref import WeakSet

from dagorama_broker.environment import DEFAULT_PORT

HOST = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
MEMORY = "memory://"
KEYS = ("DAGORAMA_SIGNING_KEYS", "DAGORAMA_SIGNING_KEYS_FILE")
#: What a script has for itself, and for the workers that it launches: no business of a broker's.
SECRETS = ("DAGORAMA_AUTH_TOKEN", "DAGORAMA_AUTH_TOKEN_FILE", *KEYS)
#: Seconds that a broker has to read its store back and serve.
START_SECONDS = 60.0
#: Seconds that it has to end cleanly once it was asked to.
STOP_SECONDS = 5.0


class BrokerNotStarted(RuntimeError):
    """The broker could not start; the message is its own sentence."""


@contextmanager
def launch_broker(
    port: int = DEFAULT_PORT,
    store: str | None = None,
    *,
    host: str = HOST,
    log_level: str = "WARNING",
    environment: Mapping[str, str] | None = None,
) -> Iterator[LaunchedBroker]:
    """Run a broker for the length of the block, with DAGORAMA_HOST and DAGORAMA_PORT set to where it is.

    Port 0 picks a free one. Without a store it starts empty and leaves nothing behind; with one it goes on with what is
    there. `host` is the address to listen on. `environment` has variables for the broker alone, among them where its
    tokens and its certificate are. Raises BrokerNotStarted.

    Where no signing key is set, one is for the block, so that it and its workers share it; not where there is a store,
    whose values the next block is to read: there the user's own key serves.
    """
    broker = LaunchedBroker(port, store or MEMORY, log_level, environment or {}, host)
    try:
        broker.start()
        with _environment(DAGORAMA_HOST=broker.host, DAGORAMA_PORT=f"{broker.port}", **_fresh_key(broker.store)):
            yield broker
    finally:
        broker.stop()


def _load_grpc() -> None:
    """Beside the broker's own start: whoever launches one is about to call it. Nothing of grpc runs yet."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else it prints a line when a broker leaves
    import dagorama.api.broker_pb2_grpc  # noqa: F401  # to be loaded is all that it is for


class LaunchedBroker:
    """A broker process and where it is. Tests kill it and start it again on the same port and store."""

    def __init__(
        self, port: int, store: str, log_level: str, environment: Mapping[str, str], bind: str = HOST
    ) -> None:
        self.host = HOST if bind in EVERYWHERE else bind
        self._bind = bind
        self.port = port
        self.store = store
        self._log_level = log_level
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._said: int | None = None  #: the read end of what the broker announces
        self._lifeline: int | None = None  #: the write end that nobody writes to
        self._scratch: str | None = None
        _all.add(self)

    def __repr__(self) -> str:
        return f"<broker at {self.address}, store {self.store}, pid {self.pid}>"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """None: it is not running."""
        return self._process.pid if self._process is not None else None

    # --- starting ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and wait until it serves. Raises BrokerNotStarted."""
        if self._process is not None:
            raise RuntimeError(f"{self!r} runs already")
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
            self._process = subprocess.Popen(
                self._command(announce, lifeline),
                env={**_without_secrets(os.environ), **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if _is_open(2) else subprocess.DEVNULL,
                pass_fds=(announce, lifeline),
                # Ctrl-C is for the script; its end is the broker's.
                start_new_session=True,
            )
        except OSError as error:
            raise BrokerNotStarted(f"{sys.executable} cannot be started: {error.strerror}") from error
        finally:
            os.close(announce)
            os.close(lifeline)

    def _command(self, announce: int, lifeline: int) -> list[str]:
        # -P: a file of the script's folder is not taken for a module of the broker's.
        python = [sys.executable, "-P", "-m", "dagorama_broker"]
        where = ["serve", "--host", self._bind, "--port", f"{self.port}", "--store", self.store]
        log = ["--log-level", self._log_level, "--log-format", "text"]
        hidden = ["--announce", f"{announce}", "--lifeline", f"{lifeline}", "--scratch", f"{self._scratch}"]
        return [*python, *where, *log, *hidden]

    def _hear(self) -> dict[str, Any]:
        """What the broker says once it serves."""
        line = self._line()
        if not line:
            code = self._process.wait() if self._process is not None else None
            raise BrokerNotStarted(f"the broker ended with code {code} before it served; its stderr may say why")
        said: dict[str, Any] = loads(line)
        if "error" in said:
            raise BrokerNotStarted(said["error"])
        return said

    def _line(self) -> bytes:
        """The line that a starting broker announces; empty: it ended without one."""
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
        """Whether the broker says something, or ends, before so much time has gone by."""
        assert self._said is not None
        poll = select.poll()
        poll.register(self._said, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    # --- ending -----------------------------------------------------------------------------------

    def stop(self) -> None:
        """End it cleanly, or with SIGKILL where it does not listen."""
        if self._process is not None:
            self._process.terminate()
            # It announces nothing more: what can be read now is the end.
            if not self._readable(STOP_SECONDS):
                self._process.kill()
        self._let_go()

    def kill(self) -> None:
        """End it with SIGKILL, in the middle of whatever it does; start() goes on with the same store."""
        if self._process is not None:
            self._process.kill()
        self._let_go()

    def restart(self) -> None:
        """Start it again, on the same port and store."""
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
        """In a forked child: the broker is the parent's, and lives as long as that one."""
        self._close_pipes()
        self._process = self._scratch = None


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in SECRETS}


_all: WeakSet[LaunchedBroker] = WeakSet()


def _forget_all() -> None:
    for broker in list(_all):
        broker.forget()


os.register_at_fork(after_in_child=_forget_all)


def _fresh_key(store: str) -> dict[str, str]:
    """A signing key for the length of the block, as `dagorama keys new` makes it; nothing where one is set."""
    if store != MEMORY or any(os.environ.get(name) for name in KEYS):
        return {}
    return {KEYS[0]: token_urlsafe(32)}


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are not among the first three: a child would take those for its own."""
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
