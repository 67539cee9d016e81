"""One turn of one system: it is started, does its parts alone on the machine, and has ended before the next one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO

from peers.systems import BENCHMARKS, System

LIMIT = 300.0  #: seconds that a turn may take
ENDING = 15.0  #: seconds after which processes that a system left behind are killed
STARTING = 10.0  #: seconds for Redis


@dataclass(slots=True)
class Turn:
    """Figures and times of a system in one turn."""

    figures: dict[str, float] = field(default_factory=dict)  #: by the key of the row
    seconds: dict[str, float] = field(default_factory=dict)  #: by the name of the part
    version: str = ""
    trouble: str = ""  #: a sentence, if the system did not finish


def turn(system: System, parts: Sequence[str], quick: bool) -> Turn:
    """Run the parts on a system that is started for it."""
    with redis() if system.needs_redis else _nothing() as settings, tempfile.TemporaryFile("w+") as log:
        command = [str(system.python), "-m", "peers.measure", system.stack, "--parts", ",".join(parts)]
        command += ["--quick"] if quick else []
        done = Turn()
        with subprocess.Popen(
            [*command, "--begun", str(time.monotonic())], stdout=subprocess.PIPE, stderr=log, text=True,
            cwd=BENCHMARKS, env={**os.environ, **settings}, start_new_session=True,
        ) as program:  # fmt: skip
            late = threading.Timer(LIMIT, _kill, (program.pid,))
            late.start()
            try:
                assert program.stdout is not None
                _read(program.stdout, done)
                program.wait()
            except BaseException:
                _kill(program.pid)
                raise
            finally:
                late.cancel()
            _end(program.pid)
        if program.returncode:
            done.trouble = _trouble(system, program.returncode, log)
    return done


def _trouble(system: System, code: int, log: IO[str]) -> str:
    if code == -signal.SIGKILL:
        return f"{system.title} was stopped after {LIMIT:.0f} s, or killed."
    log.seek(0)
    lines = log.read().strip().splitlines() or ["it said nothing"]
    return f"{system.title} ended with code {code}: {lines[-1]}"


def _read(lines: IO[str], done: Turn) -> None:
    """Take in the lines of `peers.measure`; other lines are the system's own."""
    for line in lines:
        if not line.startswith("{"):
            continue
        said = json.loads(line)
        if "row" in said:
            done.figures[said["row"]] = said["figure"]
        elif "part" in said:
            done.seconds[said["part"]] = said["seconds"]
        else:
            done.version = said["version"]


def _end(group: int) -> None:
    """Wait until all processes of the group have ended, so that the next system has the machine for itself."""
    # Nothing tells when processes have ended that a system started itself.
    until = time.monotonic() + ENDING
    while _lives(group):
        if time.monotonic() > until:
            _kill(group)
            return
        time.sleep(0.05)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@contextmanager
def _nothing() -> Iterator[dict[str, str]]:
    yield {}


@contextmanager
def redis() -> Iterator[dict[str, str]]:
    """Start an empty Redis that writes nothing to the disk; yield the setting with its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        # Redis would disconnect clients that it tells of many large results.
        unlimited = ["--client-output-buffer-limit", "pubsub", "0", "0", "0"]
        command = ["redis-server", *where, "--save", "", "--appendonly", "no", *unlimited]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                _wait_for(port)
                yield {"PEERS_REDIS": f"redis://127.0.0.1:{port}/0"}
            finally:
                server.terminate()


def _wait_for(port: int) -> None:
    until = time.monotonic() + STARTING
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
