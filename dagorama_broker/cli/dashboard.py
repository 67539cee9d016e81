"""The dashboard of `dagorama broker --dashboard`: a process that ends with the broker, and gets no token of it.

The rule: the broker imports nothing of the dashboard. If tokens are required, the pages ask each person for one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from time import monotonic

from dagorama_broker.errors import SettingsError
from dagorama_broker.launch import EVERYWHERE, HOST, SECRETS
from dagorama_broker.settings import Endpoint, Settings

log = logging.getLogger("dagorama_broker")

#: The dashboard, as arguments of Python.
PROGRAM = ("-m", "dagorama", "dashboard")
#: Modules that the dashboard needs.
MODULES = ("dagorama_dashboard", "jinja2", "starlette", "uvicorn")
#: The beginning of the line on stdout by which the dashboard says that it serves.
SERVES = "dashboard: "
#: Exit codes after which another start would end in the same way: wrong usage, an invalid setting.
HOPELESS = (2, 78)
#: Ends in a row, each less than `LONG` seconds after the start, after which it is given up.
ENDS, LONG = 5, 10.0
#: Seconds before a start, for each end in a row.
PAUSE = 1.0
#: Seconds that it has to end cleanly.
STOP_SECONDS = 5.0
_TLS = ("DAGORAMA_TLS_CA", "DAGORAMA_TLS_CERT", "DAGORAMA_TLS_KEY", "DAGORAMA_TLS_NAME")
#: Asks Linux for a SIGTERM when the broker dies, and becomes the dashboard. It is a program of its own, because Python
#: code between fork and exec is not safe next to the threads of gRPC.
_TIED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Dashboard:
    """The process of the dashboard. Raise SettingsError if it cannot work with these settings."""

    def __init__(self, settings: Settings, http_port: int | None, program: Sequence[str] = PROGRAM) -> None:
        self._settings = settings
        self._http_port = http_port
        self._program = program
        self._keeping: asyncio.Task[None] | None = None
        self._check()

    def _check(self) -> None:
        if missing := [name for name in MODULES if find_spec(name) is None]:
            raise SettingsError(f"--dashboard needs {', '.join(missing)}: pip install 'dagorama[dashboard]'")
        client = Endpoint.from_env()
        if self._settings.tls_cert and not client.tls_ca:
            raise SettingsError(
                "--dashboard needs DAGORAMA_TLS_CA, a file with the authorities of the broker's certificate, because"
                " the dashboard is a client; if the certificate is for another name, also DAGORAMA_TLS_NAME"
            )
        if self._settings.tls_client_ca and not client.tls_cert:
            raise SettingsError(
                "--dashboard needs DAGORAMA_TLS_CERT and DAGORAMA_TLS_KEY, which --tls-client-ca requires"
            )

    def start(self, port: int) -> None:
        """Start it for the broker at this port, in the running event loop, and keep it running."""
        self._keeping = asyncio.get_running_loop().create_task(self._keep(port))

    async def stop(self) -> None:
        """End it, by force after some seconds."""
        if self._keeping is not None:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping

    async def _keep(self, port: int) -> None:
        ends = 0
        while ends < ENDS:
            began = monotonic()
            code = await self._run(port)
            if code in HOPELESS:
                break
            ends = 1 if monotonic() - began > LONG else ends + 1
            log.warning("the dashboard has ended with exit code %d and restarts", code)
            await asyncio.sleep(PAUSE * ends)
        log.error("the dashboard cannot start; the broker continues without it")

    async def _run(self, port: int) -> int:
        """Run it until it ends, and return its exit code; end it if this task is cancelled."""
        process = await asyncio.create_subprocess_exec(
            *self._command(port), env=self._environment(), stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
            start_new_session=True,  # Ctrl-C interrupts the broker, which then ends it
        )  # fmt: skip
        reading = asyncio.gather(_log_lines(process.stdout), _log_lines(process.stderr))
        try:
            await reading
            return await process.wait()
        finally:
            await _end(process)

    def _command(self, port: int) -> list[str]:
        host = HOST if self._settings.host in EVERYWHERE else self._settings.host
        run = ["-P", *self._program, "--host", host, "--port", f"{port}"]
        if self._http_port is not None:
            run += ["--http-port", f"{self._http_port}"]
        return [sys.executable, *(("-c", _TIED, f"{os.getpid()}") if sys.platform == "linux" else ()), *run]

    def _environment(self) -> Mapping[str, str]:
        left_out = SECRETS if self._settings.tls_cert else (*SECRETS, *_TLS)
        return {name: value for name, value in os.environ.items() if name not in left_out}


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _log_lines(stream: asyncio.StreamReader | None) -> None:
    """Log each line; cut one that is longer than the buffer of the stream."""
    assert stream is not None
    while not stream.at_eof():
        try:
            line = (await stream.readline()).decode(errors="replace").rstrip()
        except ValueError:
            line = "(a line that is too long)"
        if line.startswith(SERVES):
            log.info("dashboard at %s", line.removeprefix(SERVES))
        elif line:
            log.info("dashboard: %s", line)
