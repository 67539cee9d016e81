"""Compare dagorama with Dask, Ray, Celery, dramatiq and the standard library, in turns in one run: tables, and JSON.

Run: python benchmarks/compare.py [--quick] [--peers ray,dask] [--rows round-trip,values] [--rounds 5] [--markdown]
     python benchmarks/compare.py --before PYTHON      another version of dagorama, which that interpreter has
     python benchmarks/compare.py --figures FILE       the tables of an earlier run     (make bench-peers ARGS=...)

In each round each system is started alone, in random order, does all workloads with two workers, and has ended before
the next one starts: what an idle system uses would slow others down on a machine of two cores.
"""

from __future__ import annotations

import random
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from time import perf_counter

from peers import tables
from peers.figures import Figures, FiguresError, read
from peers.parts import FULL, QUICK, START
from peers.systems import ALL, OURS, PEERS, ROOT, System, before, installed
from peers.turns import turn
from suite.table import machine, say

RESULTS = Path("benchmarks-peers.json")
PAGE = ROOT / "docs" / "explanation" / "benchmarks.md"
ROUNDS = 5


def names_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return a reader of names with commas between them."""

    def reader(given: str) -> list[str]:
        chosen = given.split(",")
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise ArgumentTypeError(f"there is no {', '.join(unknown)}; choose from {', '.join(known)}")
        return chosen

    return reader


def arguments(given: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description="dagorama and other systems on this machine, in turns")
    peers, rows = [peer.name for peer in PEERS], list(ALL)
    parser.add_argument("--peers", type=names_of(peers), default=peers, help=f"with commas; of {', '.join(peers)}")
    parser.add_argument("--rows", type=names_of(rows), default=rows, help=f"with commas; of {', '.join(rows)}")
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}; with --quick 1")
    parser.add_argument("--quick", action="store_true", help="smaller workloads, in under four minutes")
    parser.add_argument("--before", type=Path, metavar="PYTHON", help="an interpreter with another dagorama")
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"the file of the figures; default {RESULTS}")
    parser.add_argument("--figures", type=Path, help="show the figures of this file, and measure nothing")
    parser.add_argument("--markdown", action="store_true", help=f"write the tables into {PAGE.relative_to(ROOT)} too")
    parser.add_argument("--seed", type=int, default=1, help="of the order of turns")
    chosen = parser.parse_args(given)
    chosen.rounds = (1 if chosen.quick else ROUNDS) if chosen.rounds is None else chosen.rounds
    if chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    if chosen.markdown and (chosen.quick or chosen.peers is not peers or chosen.rows is not rows):
        parser.error("--markdown is for whole runs: leave out --quick, --peers and --rows")
    return chosen


def measured(chosen: Namespace) -> Figures:
    """Run all rounds. SIGTERM then ends the system of the turn too, which otherwise would go on alone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    wanted = [OURS, *(peer for peer in PEERS if peer.name in chosen.peers)]
    wanted += [before(chosen.before.absolute())] if chosen.before else []
    systems, missing = installed(wanted)
    sizes = QUICK if chosen.quick else FULL
    titles = {system.name: system.title for system in systems}
    described = {name: str(what) for name, what in machine().items() if name in ("machine", "processor", "store")}
    figures = Figures(described, 0, sizes._asdict(), titles, missing=missing)
    chance = random.Random(chosen.seed)
    for number in range(1, chosen.rounds + 1):
        for system in chance.sample(systems, len(systems)):
            start = perf_counter()
            one_turn(figures, system, chosen)
            say(f"round {number} of {chosen.rounds}: {system.name}, {perf_counter() - start:.0f} s")
        figures.rounds = number
        figures.write(chosen.json)  # a run that is stopped leaves its whole rounds
    return figures


def one_turn(figures: Figures, system: System, chosen: Namespace) -> None:
    """Run the parts that are not too slow to be repeated, and take the rows that are wanted."""
    slow = figures.slow.get(system.name, ())
    parts = [part for part in system.parts if part in chosen.rows and part not in slow]
    done = turn(system, [part for part in parts if part != START], chosen.quick)
    if START not in parts:
        done.figures.pop(START, None)
    figures.add(system.name, done)
    if done.trouble:
        say(done.trouble)


def main(given: Sequence[str] | None = None) -> int:
    chosen = arguments(given)
    begun = perf_counter()
    try:
        figures = read(chosen.figures) if chosen.figures else measured(chosen)
        if not chosen.figures:
            say(f"{perf_counter() - begun:.0f} s in all; figures in {chosen.json}")
        print(tables.text(figures))
        if chosen.markdown:
            tables.write(PAGE, figures)
    except (FiguresError, tables.PageError) as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        say(f"Stopped. Rounds that were whole are in {chosen.json}; --figures shows them.")
        return 128 + signal.SIGINT
    return 1 if figures.troubles else 0


if __name__ == "__main__":
    sys.exit(main())
