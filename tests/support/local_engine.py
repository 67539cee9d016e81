"""An engine of pools that runs workers as processes of this machine, and remembers them in a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dagorama.pools.engine import EngineRefused, Phase
from dagorama.pools.worker_spec import WorkerSpec
from tests.pools.stories import runs

ROOT = Path(__file__).parents[2]


class LocalEngine:
    """The members are the files of a folder, whose names are IDs and whose contents are process IDs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[subprocess.Popen[bytes]] = []

    def reap(self) -> None:
        """Wait for the end of the workers that this object has started."""
        for child in self._children:
            child.wait()

    def start(self, n: int, worker: WorkerSpec) -> list[str]:
        return [self._start(worker) for _ in range(n)]

    def _start(self, worker: WorkerSpec) -> str:
        member = f"{len(list(self._folder.iterdir())):04}"
        command = [sys.executable, "-m", "dagorama.worker", *worker.flags(), "--name", worker.name_of(member)]
        environment = {**os.environ, **worker.environment, "PYTHONPATH": f"{ROOT}"}
        try:
            child = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
        except OSError as error:
            raise EngineRefused(f"{error}") from None
        self._children.append(child)
        (self._folder / member).write_text(f"{child.pid}")
        return member

    def alive(self) -> Mapping[str, Phase]:
        return {member: Phase.RUNNING for member, pid in self._pids().items() if runs(pid)}

    def drain(self, ids: Sequence[str]) -> None:
        pids = self._pids()
        for id in ids:
            with suppress(ProcessLookupError):
                os.kill(pids[id], signal.SIGTERM)

    def _pids(self) -> dict[str, int]:
        return {file.name: int(file.read_text()) for file in sorted(self._folder.iterdir())}
