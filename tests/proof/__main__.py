"""`make proof`: everything that shows the promises, each part seeded and bounded, with a table at the end.

It ends with 1 when a part does. Two parts run at a time; what a part prints is shown when it has ended. None has to
end within some time: one that makes no progress is taken to hang, see `progress`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from .progress import PATIENCE, STALLED, STEPS

ROOT = Path(__file__).parents[2]
#: Of tests, none of which has to end within some time.
PYTEST = ("-m", "pytest", "-q", "-o", "timeout=0")


@dataclass(frozen=True)
class Part:
    name: str
    what: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


#: The longest first, so that nothing is left alone at the end.
PARTS = (
    Part("mutations", "faults put back one at a time", ("-m", "tests.simulation.mutations", "--seeds", "2000")),
    Part("simulation", "lives of broker, disk, network, workers", ("-m", "tests.simulation", "--seeds", "2000")),
    Part("aging", "lives in which instances are removed and retried",
         ("-m", "tests.simulation", "--life", "aging", "--seeds", "500")),
    Part("schedules", "lives in which schedules start instances",
         ("-m", "tests.simulation", "--life", "schedules", "--seeds", "200")),
    Part("hooks", "lives in which failure hooks are called",
         ("-m", "tests.simulation", "--life", "hooks", "--seeds", "200")),
    Part("signals", "lives in which signals are sent and waited for",
         ("-m", "tests.simulation", "--life", "signals", "--seeds", "200")),
    Part("chaos", "real processes killed and stopped", ("benchmarks/chaos.py", "--kills", "12", "--nodes", "2500")),
    Part("power loss", "writes and syncs cut off anywhere", ("-m", "tests.proof.power", "--cuts", "120")),
    Part("early grants", "broker killed between a grant and its commit", ("-m", "tests.proof.early")),
    Part("database", "server killed, connections cut, brokers replaced", ("-m", "tests.proof.postgres")),
    Part("scheduler", "anything in any order (hypothesis)", (*PYTEST, "tests/scheduler"),
         (("SCHEDULER_EXAMPLES", "200"),)),
    Part("damage", "one byte changed in a store", ("-m", "tests.proof.damage", "--flips", "200")),
    Part("wire", "anything sent to a broker", ("-m", "tests.proof.fuzz", "--examples", "1500")),
    Part("readers", "bytes guided by coverage (atheris, where it installs)",
         ("-m", "tests.proof.guided", "--runs", "200000")),
    Part("disk and clock", "full, read-only, locked; standing still",
         (*PYTEST, *(f"tests/{name}.py" for name in ("proof/test_disk", "store/test_sqlite",
                                                                  "scheduler/test_restore")))),
    Part("other end", "anything sent to a worker or a client",
         (*PYTEST, "tests/worker/test_any_message.py", "tests/client/test_any_reply.py"),
         (("REPLY_EXAMPLES", "500"),)),
    Part("signatures", "each byte flipped, roles and nodes swapped",
         (*PYTEST, "tests/values/test_signing.py")),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    part: Part
    code: int
    seconds: float
    output: str

    @property
    def count(self) -> str:
        """What the part says that it has done: the last line of what it printed."""
        lines = [line.strip(" =") for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else "nothing"


def run(part: Part) -> Outcome:
    began = time.perf_counter()
    with TemporaryDirectory(prefix="proof-") as folder:
        steps, said = Path(folder, "steps"), Path(folder, "said")
        steps.touch()
        environment = {**os.environ, **dict(part.environment), STEPS: str(steps), PATIENCE: str(STALLED)}
        with said.open("wb") as out, subprocess.Popen(
            [sys.executable, *part.command], cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:  # fmt: skip
            hangs = not _ends(process, steps, said)
        output = said.read_text(errors="replace")
    if hangs:
        output += f"\nit has made no progress for {STALLED:g} s"
    outcome = Outcome(part, process.returncode, time.perf_counter() - began, output)
    print(f"--- {part.name}: {' '.join(part.command)}\n{_shown(output)}\n", flush=True)
    return outcome


def _ends(process: subprocess.Popen[bytes], *files: Path) -> bool:
    """Whether a process ends by itself: one while which none of these files has grown for long is killed."""
    size, stalled_at = -1, 0.0
    while not _has_ended(process):
        now = sum(file.stat().st_size for file in files)
        if now != size:
            size, stalled_at = now, time.monotonic() + STALLED
        elif time.monotonic() > stalled_at:
            os.killpg(process.pid, signal.SIGKILL)
            return False
    return True


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Wait for it for a moment."""
    try:
        process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return False
    return True


def _shown(output: str) -> str:
    return "\n".join(output.splitlines()[-60:])


def table(outcomes: list[Outcome]) -> str:
    rows = [("part", "what", "seconds", "verdict", "count")]
    rows += [
        (each.part.name, each.part.what, f"{each.seconds:.0f}", "FAILED" if each.code else "held", each.count[:120])
        for each in outcomes
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in padded)


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.proof", description="All that shows the promises.")
    parser.add_argument("--only", nargs="*", help="names of parts")
    options = parser.parse_args()
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(run, parts))
    print(table(outcomes))
    failed = sum(outcome.code != 0 for outcome in outcomes)
    print(f"{len(outcomes) - failed} of {len(outcomes)} parts held, {time.perf_counter() - began:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
