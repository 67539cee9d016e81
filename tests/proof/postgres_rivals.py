"""Brokers of one PostgreSQL store that replace one another: processes that are killed, stopped, or never renew."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType

from .postgres_rival import REPLACED
from .progress import patience

ROOT = Path(__file__).parents[2]
#: Seconds of a lease that is renewed, of one that runs out, and until a leader that commits is harmed, at most.
LONG, SHORT, BEFORE = 60.0, 1.0, 0.2
#: The ends of one leader after another. "late": it does not renew its lease, and commits on. "alone": the same, and its
#: successor does not end its sessions, so that only the fence is between them.
ENDS = ("alone", "kill", "stop", "kill", "late", "kill")


class Rival:
    """One broker, and the way in which it ends."""

    def __init__(self, url: str, folder: Path, number: int, seed: int) -> None:
        self.ends_by = ENDS[number % len(ENDS)]
        self.number = number
        self._errors = folder / f"errors-{number}"
        options = ["--seed", f"{seed}", "--lease", f"{LONG if self.ends_by == 'kill' else SHORT}"]
        options += ["--unrenewed"] if self.ends_by in ("late", "alone") else []
        options += ["--leave-sessions"] if number and ENDS[(number - 1) % len(ENDS)] == "alone" else []
        command = [url, f"{folder / 'values'}", f"{folder / f'ledger-{number:04}'}", *options]
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.proof.postgres_rival", *command], cwd=ROOT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip

    def until(self, word: str) -> str:
        """Wait until it says this word, and return the rest of the line. Raise RivalEnded if it has ended before."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(word):
            raise RivalEnded(f"broker {self.number} ended before it {word}: {self.last_error()}")
        return line.removeprefix(word).strip()

    def harm(self) -> None:
        """Kill or stop it, or only let its lease run out."""
        if self.ends_by == "kill":
            self.process.kill()
        elif self.ends_by == "stop":
            self.process.send_signal(signal.SIGSTOP)

    def ended_well(self) -> bool:
        """Tell it that it was replaced, and return whether it then leaves as it should."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has noticed before
            self.process.stdin.write("replaced\n")
            self.process.stdin.flush()
        self.process.send_signal(signal.SIGCONT)
        code = self.process.wait(patience(60))
        return code == (-signal.SIGKILL if self.ends_by == "kill" else REPLACED)

    def last_error(self) -> str:
        lines = self._errors.read_text().splitlines()
        return " ".join(lines[-2:]) or "it said nothing"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()


class RivalEnded(Exception):
    """A broker that should lead has ended."""


class Rivals:
    """A leader, and again and again one that takes its place."""

    def __init__(self, url: str, folder: Path, chance: random.Random) -> None:
        self.seconds: list[float] = []  #: from SIGKILL to the first commit of the next one
        self.violations: list[str] = []
        self._url = url
        self._folder = folder
        self._chance = chance
        self._numbers = count()
        self._rivals: list[Rival] = []

    def __enter__(self) -> Rivals:
        try:
            leader = self._start()
            leader.until("waits")
            leader.until("commits")
        except RivalEnded as error:
            self.violations.append(str(error))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for rival in self._rivals:
            rival.end()

    def take_over(self) -> None:
        """Start a broker that waits, harm the leader, and wait until the other one commits."""
        if self.violations:
            return
        leader, standby = self._rivals[-1], self._start()
        try:
            standby.until("waits")
            time.sleep(self._chance.random() * BEFORE)
            harmed = time.monotonic()
            leader.harm()
            committed = float(standby.until("commits"))
        except RivalEnded as error:
            self.violations.append(str(error))
            return
        if leader.ends_by == "kill":
            self.seconds.append(committed - harmed)
        if not leader.ended_well():
            self.violations.append(
                f"broker {leader.number} ended with {leader.process.returncode} after it was replaced:"
                f" {leader.last_error()}"
            )
        leader.end()
        self._rivals.remove(leader)

    def _start(self) -> Rival:
        rival = Rival(self._url, self._folder, next(self._numbers), self._chance.getrandbits(32))
        self._rivals.append(rival)
        return rival
