"""A run of `dagorama dev`: starts its children, says where they are, keeps them running, and ends them in order."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from functools import partial

from dagorama.cli.checks import CHECK
from dagorama.cli.dev.child import Child, Launch
from dagorama.cli.dev.console import Console
from dagorama.cli.dev.data import AddressFile
from dagorama.cli.dev.keeper import Keeper
from dagorama.cli.dev.roles import Broker, CannotStart, Dashboard, Plan, Worker, reloads
from dagorama.cli.exit_codes import ExitCode
from dagorama.dev_address import HOST

#: Seconds that each child gets to end before it is killed.
_STOP_SECONDS = 8.0


class Session:
    """The children of one run."""

    def __init__(self, plan: Plan, address: AddressFile, notes: tuple[str, ...] = ()) -> None:
        self._plan = plan
        self._address = address
        self._notes = notes  #: lines to print after the summary
        self._console = Console()
        self._stop = asyncio.Event()
        self._hurried = False
        self._broker = Broker()
        self._dashboard = Dashboard(self._broker)
        self._keepers = [
            Keeper(role, plan, self._console) for role in (self._broker, self._dashboard, Worker(self._broker))
        ]  # in the order of their start; they are stopped in the other order

    async def run(self) -> int:
        """Run until a signal, or until a child cannot be kept running; return the exit code."""
        loop = asyncio.get_running_loop()
        # The other two count even if the shell that has started this in the background ignores them; nohup must work.
        hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
        for number in (signal.SIGINT, signal.SIGTERM, *hangup):
            loop.add_signal_handler(number, self._on_signal)
        running, told = asyncio.ensure_future(self._run()), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([running, told], return_when=asyncio.FIRST_COMPLETED)
            return await self._result(running)
        finally:
            told.cancel()
            await self._stop_all()

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurried = True
            for keeper in self._keepers:
                keeper.kill()
        self._stop.set()

    async def _result(self, running: asyncio.Future[None]) -> int:
        """Return the exit code, and say why if no signal has asked for the end."""
        running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            return ExitCode.OK
        except CannotStart as error:
            self._console.release()
            self._console.say(f"{error}; this ends dagorama dev")
            return ExitCode.REFUSED
        return ExitCode.OK

    async def _stop_all(self) -> None:
        self._console.release()
        self._address.clear()
        for keeper in reversed(self._keepers):
            await keeper.stop(0 if self._hurried else _STOP_SECONDS)

    # --- the children ---------------------------------------------------------------------------------

    async def _run(self) -> None:
        broker, dashboard, worker = self._keepers
        await broker.start()
        self._address.write(self._broker.port)
        if self._plan.workers:
            await worker.start()
        await self._start_page(dashboard)
        self._summarize()
        kept = asyncio.gather(broker.keep(), self._keep_worker(worker), self._keep_page(dashboard), self._check())
        try:
            await kept
        finally:
            kept.cancel()

    async def _start_page(self, dashboard: Keeper) -> None:
        with suppress(CannotStart):
            await dashboard.start()

    async def _keep_page(self, dashboard: Keeper) -> None:
        """Keep the dashboard running, if it has ever served; work goes on without it."""
        if self._dashboard.address:
            try:
                await dashboard.keep()
            except CannotStart as error:
                self._console.say(f"{error}; the dashboard is not available from now on")

    async def _keep_worker(self, worker: Keeper) -> None:
        """Keep the worker running. If it watches no files, it cannot wait for the repair of a module."""
        try:
            await worker.keep()
        except CannotStart as error:
            if reloads():
                raise
            self._console.say(f"{error}; fix the error and start dagorama dev again")

    async def _check(self) -> None:
        """Print findings of `dagorama check`, if no worker prints them at each change of a file."""
        if self._plan.workers and reloads():
            return
        launch = Launch((*CHECK, "."), self._plan.target.folder, os.environ)
        try:
            child = await Child.start(launch, partial(self._console.line, "check"))
        except OSError as error:
            self._console.say(f"dagorama check cannot be started: {error.strerror}")
            return
        try:
            await child.ended()
        finally:
            child.kill()

    # --- what is said ---------------------------------------------------------------------------------

    def _summarize(self) -> None:
        self._console.summary("broker", f"{HOST}:{self._broker.port}, data in {self._plan.store}")
        self._console.summary("worker", self._workers_text())
        self._console.summary("dashboard", self._dashboard.address or self._no_page_text())
        for note in self._notes:
            self._console.say(note)
        self._console.release()

    def _workers_text(self) -> str:
        if not self._plan.workers:
            return "none: start one with `worker` in this folder"
        processes = f"{self._plan.workers} {'process' if self._plan.workers == 1 else 'processes'}"
        change = (
            "restarted when a Python file changes" if reloads()
            else "changes need a restart of dagorama dev: pip install 'dagorama[hot-reload]'"
        )  # fmt: skip
        return f"{processes} for {self._plan.target}, {change}"

    def _no_page_text(self) -> str:
        """Return why there is no page: the only line that the dashboard has written, if it has written one."""
        lines = [line for line in self._console.take("dashboard") if line.strip()]
        if len(lines) > 1:
            for line in lines:
                self._console.line("dashboard", line)
            return "none: it has ended, see below"
        return f"none: {lines[0].removeprefix('dagorama: ')}" if lines else "none: it has ended"
