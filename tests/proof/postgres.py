"""The PostgreSQL store: its server is killed, its connections are cut, its broker or its server is replaced.

`python -m tests.proof.postgres [--cuts N] [--takeovers N] [--kills N] [--promotions N] [--seed N] [--long]` ends with 1
if a commit that was acknowledged is lost, one is made twice, or a broker commits after it was replaced; or if one of
four weaker stores gets by unnoticed. It starts servers of its own.
"""

from __future__ import annotations

import logging
import sys
import time
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext

from dagorama_broker.errors import StoreError
from tests.support.cutting_proxy import CuttingProxy
from tests.support.postgres_server import NoServer, PostgresServer, new_schema, running_server

from .postgres_mutants import MUTANTS
from .postgres_promotions import promotions
from .postgres_rivals import Rivals
from .postgres_stage import Stage, Verdict, judged
from .postgres_workload import Workload
from .progress import made

#: How often each of it happens: in the everyday run, in the long one, and until a weaker store must have been noticed.
EVERYDAY = {"cuts": 100, "takeovers": 10, "kills": 20, "promotions": 2}
LONG = {"cuts": 1_000, "takeovers": 100, "kills": 200, "promotions": 20}
WEAKER = {"cuts": 20, "takeovers": 1, "kills": 4}
#: Cuts of which at least one must lose the answer to a commit that was made.
SHOWN = 10
#: Commits between two kills, at most.
BETWEEN = 60


# --- the parts --------------------------------------------------------------------------------------------


def cuts(server: PostgresServer, stage: Stage, count: int) -> None:
    """Lose questions and answers of commits, also of those in a transaction of several statements."""
    with (
        closing(CuttingProxy(server.port)) as proxy,
        stage.working(stage.url.replace(f":{server.port}/", f":{proxy.port}/")) as work,
    ):
        for number in range(1, count + 1):
            for _ in range(stage.chance.randint(0, 8)):
                work.commit()
            proxy.lose(stage.chance.choice(("question", "answer")), stage.chance.choice((0, 0, 0, 1, 2, 4)))
            while proxy.lost < number:
                work.commit()
            made()


def takeovers(server: PostgresServer, stage: Stage, count: int) -> None:
    """Kill and stop brokers, or let them not renew their lease, while others wait."""
    with Rivals(stage.url, stage.folder, stage.chance) as rivals:
        for _ in range(count):
            rivals.take_over()
            made()
    stage.verdict.seconds += rivals.seconds
    stage.verdict.violations += rivals.violations


def kills(server: PostgresServer, stage: Stage, count: int) -> None:
    """Crash the server and start it again while a broker commits."""
    with stage.working() as work, ThreadPoolExecutor(1) as thread:
        killing = thread.submit(_kill, server, stage, work, count)
        try:
            while not killing.done():
                work.commit()
        except StoreError:
            killing.cancel()
            raise
        finally:
            work.is_over = True
        killing.result()


def _kill(server: PostgresServer, stage: Stage, work: Workload, count: int) -> None:
    for _ in range(count):
        enough = work.acknowledged + stage.chance.randint(1, BETWEEN)
        while work.acknowledged < enough and not work.is_over:
            time.sleep(0.001)
        if work.is_over:
            return
        server.stop()
        server.start()
        made()


PARTS = {"cuts": cuts, "takeovers": takeovers, "kills": kills}


def prove(server: PostgresServer, part: str, count: int, seed: int, mutant: str = "") -> Verdict:
    """Return what one part has found, of the store or of a weaker one."""
    weaker = MUTANTS[mutant][1] if mutant else nullcontext
    with new_schema(server.url) as url, judged(url, count, seed) as stage, weaker(url):
        PARTS[part](server, stage, count)
    verdict = stage.verdict
    if part == "cuts" and not mutant and verdict.found_out < count // SHOWN:
        verdict.violations.append("too few commits had been made when their answers were lost: nothing is shown")
    return verdict


def prove_all(server: PostgresServer, counts: dict[str, int], seed: int) -> int:
    failed, noticed = False, 0
    for part, count in counts.items():
        verdict = promotions(count, seed) if part == "promotions" else prove(server, part, count, seed)
        failed = failed or bool(verdict.violations)
        print(f"{count} {part}: {verdict}", flush=True)
        for violation in verdict.violations[:5]:
            print(f"  VIOLATION: {violation}")
    for mutant, (part, _) in MUTANTS.items():
        verdict = prove(server, part, WEAKER[part], seed, mutant)
        noticed += bool(verdict.violations)
        what = verdict.violations[0] if verdict.violations else "UNNOTICED"
        print(f"{mutant}: {what}", flush=True)
    done = ", ".join(f"{count} {part}" for part, count in counts.items())
    print(f"{done}, {noticed} of {len(MUTANTS)} weaker stores found out")
    return int(failed or noticed < len(MUTANTS))


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.proof.postgres", description="Kills, cuts and takeovers.")
    for part, count in EVERYDAY.items():
        parser.add_argument(f"--{part}", type=int, help=f"{count}; {LONG[part]} with --long")
    parser.add_argument("--long", action="store_true", help="about fifteen minutes")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    usual = LONG if options.long else EVERYDAY
    logging.getLogger("dagorama_broker").setLevel(logging.ERROR)  # each server that is away is a warning
    counts = {part: usual[part] if (given := getattr(options, part)) is None else given for part in usual}
    try:
        with running_server() as server:
            return prove_all(server, counts, options.seed)
    except NoServer as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
