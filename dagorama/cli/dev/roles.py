"""The three kinds of children of `dagorama dev`: their command lines, and how each tells that it serves.

The rule: they get the address of the broker from here, and none of the variables that name another one.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Collection, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from dagorama.cli.dev.child import Child, Launch, described
from dagorama.cli.dev.console import Console
from dagorama.cli.dev.data import STORE
from dagorama.cli.dev.target import Target
from dagorama.cli.exit_codes import ExitCode
from dagorama.dev_address import HOST

#: Variables for brokers with tokens and TLS: this one serves its machine only, and needs neither.
_OF_OTHER_BROKERS = frozenset({
    "DAGORAMA_AUTH_TOKEN", "DAGORAMA_AUTH_TOKEN_FILE", "DAGORAMA_BROKER_TLS_CERT", "DAGORAMA_BROKER_TLS_CLIENT_CA",
    "DAGORAMA_BROKER_TLS_KEY", "DAGORAMA_TLS_CA", "DAGORAMA_TLS_CERT", "DAGORAMA_TLS_KEY", "DAGORAMA_TLS_NAME",
    "DAGORAMA_TOKENS_FILE",
})  # fmt: skip
#: Begins the line on stdout by which the dashboard says that it serves.
_DASHBOARD_SERVES = "dashboard: "
#: Seconds that running nodes get when the worker is stopped.
GRACE = 2
_START_SECONDS = 60.0


class CannotStart(Exception):
    """A child has ended before it served; the message is its own, or says how it ended."""


class Plan(NamedTuple):
    """The code, the data and the ports of one run."""

    target: Target
    store: Path  #: the folder of the store
    workers: int
    port: int
    http_port: int

    def environment(self, port: int) -> dict[str, str]:
        """Return the environment of children, which find the broker at this port."""
        kept = {name: value for name, value in os.environ.items() if name not in _OF_OTHER_BROKERS}
        return {**kept, "DAGORAMA_HOST": HOST, "DAGORAMA_PORT": f"{port}"}


class Role(Protocol):
    """A kind of child."""

    @property
    def name(self) -> str: ...

    @property
    def hopeless(self) -> Collection[int]:
        """Exit codes after which another start would end in the same way."""
        ...

    async def spawn(self, plan: Plan, console: Console) -> Child:
        """Start a child."""
        ...

    async def serving(self, child: Child) -> None:
        """Return when the child serves. Raises CannotStart."""
        ...


class Broker:
    """The broker. It reports its port, or why it cannot serve, through a pipe, as to `launch_broker`."""

    name = "broker"
    hopeless = frozenset({int(ExitCode.BAD_CONFIG)})

    def __init__(self) -> None:
        self.port = 0  #: that it listens on
        self._said = -1  #: the end of the pipe to read from

    async def spawn(self, plan: Plan, console: Console) -> Child:
        self._said, announce = os.pipe()
        arguments = [
            "-m", "dagorama_broker", "serve", "--host", HOST, "--port", f"{self.port or plan.port}",
            "--store", f"sqlite:///{plan.store / STORE}", "--log-format", "text", "--announce", f"{announce}",
        ]  # fmt: skip
        try:
            launch = Launch(arguments, plan.target.folder, plan.environment(plan.port), (announce,))
            return await Child.start(launch, partial(console.line, self.name))
        except BaseException:
            os.close(self._said)
            raise
        finally:
            os.close(announce)

    async def serving(self, child: Child) -> None:
        line = await self._announced()
        found: dict[str, Any] = json.loads(line) if line else {}
        if "port" not in found:
            raise CannotStart(found.get("error") or f"the broker {described(await child.ended())}")
        self.port = found["port"]

    async def _announced(self) -> bytes:
        """Return the line that the broker reports; empty if it ends without one."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._said, "rb")
        )
        try:
            return await reader.readline()
        finally:
            transport.close()


class Worker:
    """The worker. If it can watch files, it restarts its processes by itself when a Python file changes."""

    name = "worker"
    hopeless = frozenset({2})  # of `worker`: settings, or a module that cannot be imported

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def spawn(self, plan: Plan, console: Console) -> Child:
        arguments = ["-m", "dagorama", "worker", "--concurrency", f"{plan.workers}", "--grace", f"{GRACE}"]
        if reloads():
            arguments += ["--reload", "--watch-dir", f"{plan.target.folder}", "--watch-pattern", "*.py"]
        if plan.target.module:
            arguments += ["--import", plan.target.module]
        launch = Launch(arguments, plan.target.folder, plan.environment(self._broker.port))
        return await Child.start(launch, partial(console.line, self.name))

    async def serving(self, child: Child) -> None:
        """Return at once: an error in the user's code keeps no worker from waiting for its repair."""


class Dashboard:
    """The dashboard, which prints its address when it serves."""

    name = "dashboard"
    hopeless = frozenset({int(ExitCode.USAGE), int(ExitCode.BAD_CONFIG)})

    def __init__(self, broker: Broker, program: Sequence[str] = ("-m", "dagorama", "dashboard")) -> None:
        self._broker = broker
        self._program = program  #: arguments of Python
        self.address = ""  #: of its pages
        self._serves = asyncio.Event()

    async def spawn(self, plan: Plan, console: Console) -> Child:
        self._serves.clear()
        arguments = [
            *self._program, "--host", HOST, "--port", f"{self._broker.port}", "--bind", HOST,
            "--http-port", self._port() or f"{plan.http_port}", "--new-code",
        ]  # fmt: skip
        launch = Launch(arguments, plan.target.folder, plan.environment(self._broker.port))
        return await Child.start(launch, partial(self._line, console))

    def _port(self) -> str:
        """Return the port of the pages that are open in browsers already; empty at the first start."""
        port = self.address.rstrip("/").rpartition(":")[2]
        return port if port.isdecimal() else ""

    def _line(self, console: Console, text: str) -> None:
        if text.startswith(_DASHBOARD_SERVES) and not self._serves.is_set():
            self.address = text.removeprefix(_DASHBOARD_SERVES)
            self._serves.set()
        else:
            console.line(self.name, text)

    async def serving(self, child: Child) -> None:
        serving, ending = asyncio.ensure_future(self._serves.wait()), asyncio.ensure_future(child.ended())
        try:
            await asyncio.wait([serving, ending], timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                child.kill()
                raise CannotStart(f"the dashboard {described(await ending)}")
        finally:
            serving.cancel()
            ending.cancel()


def reloads() -> bool:
    """Return whether workers can watch files, which needs an extra."""
    return find_spec("watchfiles") is not None
