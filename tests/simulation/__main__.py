"""Runs lives from seeds. `python -m tests.simulation --seed N` replays one exactly; `--trace` shows what happened.

It ends with 1 when a promise was broken, and says by which seed.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser

from ..proof.progress import made
from . import hashing
from .aging import AgingLife
from .hooks import HookedLife
from .life import Life, run
from .schedules import ScheduledLife
from .signals import SignalLife

LIVES: dict[str, type[Life]] = {
    "plain": Life, "aging": AgingLife, "schedules": ScheduledLife, "hooks": HookedLife, "signals": SignalLife,
}  # fmt: skip


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.simulation", description="Simulated lives of broker and workers.")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument(
        "--life",
        choices=list(LIVES),
        default="plain",
        help="aging: instances go and are retried; schedules: schedules start them; hooks: they have failure hooks",
    )
    parser.add_argument("--trace", action="store_true", help="print what happened in it")
    options = parser.parse_args()
    first, count = (options.seed, 1) if options.seed is not None else (options.first, options.seeds)
    began, totals = time.perf_counter(), [0] * 6
    for seed in range(first, first + count):
        result = run(seed, LIVES[options.life])
        made()
        if options.trace:
            print(*(" ".join(map(str, line)) for line in result.trace), sep="\n")
        if result.violation is not None:
            print(f"seed {seed}: VIOLATION {result.violation}")
            print(f"replay: python -m tests.simulation --life {options.life} --seed {seed} --trace")
            return 1
        counts = result.nodes, result.starts, result.restarts, result.faults, result.messages, result.commits
        totals = [total + more for total, more in zip(totals, counts, strict=True)]
    names = ("nodes", "starts", "broker deaths", "faults", "messages", "commits")
    what = ", ".join(f"{total} {name}" for total, name in zip(totals, names, strict=True))
    seconds = time.perf_counter() - began
    print(f"seeds {first} to {first + count - 1}: {what}; {seconds:.1f} s, {count / seconds:.0f} seeds/s; all held")
    if count == 1:
        print(f"trace {result.digest}")
    return 0


if __name__ == "__main__":
    hashing.fix("tests.simulation")
    sys.exit(main())
