"""Tests the tester: `python -m tests.simulation.mutations` breaks the product in one way after another.

Each fault must be caught within `--seeds` lives; the table says by which seed and by which check. It ends with 1 when
one goes unnoticed, or when its patch no longer fits the product and raises an error of its own.
"""

from __future__ import annotations

import re
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from ..proof.progress import made
from . import hashing
from .aging import AgingLife
from .aging_mutants import AGING
from .hook_mutants import HOOKS
from .hooks import HookedLife
from .life import Life, run
from .mutants import MUTANTS, broken
from .schedule_mutants import SCHEDULES
from .schedules import ScheduledLife
from .signal_mutants import SIGNALS
from .signals import SignalLife

#: Mutants that need lives of their own.
LIVES = ((AGING, AgingLife), (SCHEDULES, ScheduledLife), (HOOKS, HookedLife), (SIGNALS, SignalLife))
#: Errors of a patch that names what the product no longer has.
MISFIT = re.compile(r"(AttributeError|TypeError|NameError|ImportError)\(")


@dataclass(frozen=True)
class Caught:
    mutant: str
    seed: int  #: 0: it was not
    check: str
    text: str
    seconds: float


def catch(mutant: str, seeds: int) -> Caught:
    began = time.perf_counter()
    life = next((life for mutants, life in LIVES if mutant in mutants), Life)
    with broken(mutant):
        for seed in range(1, seeds + 1):
            violation = run(seed, life).violation
            made()
            if violation is not None and violation.check == "no handler breaks" and MISFIT.search(str(violation)):
                return Caught(mutant, 0, f"ITS PATCH DOES NOT FIT: {violation}", "", time.perf_counter() - began)
            if violation is not None:
                return Caught(mutant, seed, violation.check, str(violation), time.perf_counter() - began)
    return Caught(mutant, 0, "", "", time.perf_counter() - began)


def catch_all(mutants: Sequence[str], seeds: int, jobs: int) -> Iterator[Caught]:
    if jobs == 1:
        yield from (catch(mutant, seeds) for mutant in mutants)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(catch, mutants, [seeds] * len(mutants))


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.simulation.mutations", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="parts of names")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    mutants = [name for name in MUTANTS if not options.only or any(part in name for part in options.only)]
    width, missed = max(map(len, mutants)), 0
    print(f"{'mutation'.ljust(width)}  seed  caught by")
    for caught in catch_all(mutants, options.seeds, options.jobs):
        missed += not caught.seed
        what = caught.text if options.verbose and caught.seed else caught.check
        print(f"{caught.mutant.ljust(width)}  {caught.seed or '-':>4}  {what or 'NOBODY'}", flush=True)
    print(f"{len(mutants) - missed} of {len(mutants)} caught within {options.seeds} seeds")
    return int(missed > 0)


if __name__ == "__main__":
    hashing.fix("tests.simulation.mutations")
    sys.exit(main())
