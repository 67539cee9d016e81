"""The PostgreSQL store: its server is killed, its connections are cut, its broker is replaced.

`python -m tests.proof.postgres [--cuts N] [--takeovers N] [--kills N] [--seed N] [--long]` ends with 1 if a commit that
was acknowledged is lost, one is made twice, or a broker commits after it was replaced; or if one of four weaker stores
gets by unnoticed. It starts a server of its own.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psycopg
from psycopg.errors import UniqueViolation

from dagorama_broker.errors import StoreError
from dagorama_broker.store.postgres.database import WritingLine
from dagorama_broker.store.postgres.errors import EPOCH_OVER
from dagorama_broker.store.postgres.store import PostgresStore
from dagorama_broker.store.postgres.writer import Writer
from tests.support.cutting_proxy import CuttingProxy
from tests.support.postgres_server import NoServer, PostgresServer, new_schema, running_server

from .postgres_judge import found, judge
from .postgres_mutants import MUTANTS, replaced
from .postgres_rivals import Rivals
from .postgres_workload import Ledger, Workload
from .progress import made, patience

#: Cuts, takeovers and kills: of the everyday run, of the long one, and until a weaker store must have been noticed.
EVERYDAY = {"cuts": 100, "takeovers": 10, "kills": 20}
LONG = {"cuts": 1_000, "takeovers": 100, "kills": 200}
WEAKER = {"cuts": 20, "takeovers": 1, "kills": 4}
#: Cuts of which at least one must lose the answer to a commit that was made.
SHOWN = 10
#: Commits between two kills, at most.
BETWEEN = 60


@dataclass
class Verdict:
    events: int  #: cuts, takeovers or kills
    acknowledged: int = 0  #: commits
    unanswered: int = 0  #: tries to commit
    found_out: int = 0  #: commits that turned out to be made by such a try
    seconds: list[float] = field(default_factory=list)  #: from SIGKILL to the first commit of the next broker
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.acknowledged:,} commits acknowledged"
        if self.unanswered:
            text += f", {self.unanswered} tries without an answer, of which {self.found_out} had been made"
        if self.seconds:
            text += f", {median(self.seconds):.2f} s from SIGKILL to the next commit (at most {max(self.seconds):.2f})"
        return f"{text}, {len(self.violations)} violations"


class Stage:
    """A store in a schema of its own, and what is found of it."""

    def __init__(self, server: PostgresServer, url: str, folder: Path, seed: int, verdict: Verdict) -> None:
        self.server = server
        self.url = url
        self.folder = folder
        self.chance = random.Random(seed)
        self.verdict = verdict

    @contextmanager
    def working(self, port: int) -> Iterator[Workload]:
        """Yield the work of a broker in this process that reaches the server at this port."""
        url = self.url.replace(f":{self.server.port}/", f":{port}/")
        store = PostgresStore(url, self.folder / "values", patience(60))
        with closing(Ledger(self.folder / "ledger")) as ledger, closing(store), counted(self.verdict):
            try:
                store.open()
                work = Workload(store, store.take(), ledger, self.chance)
                yield work
            except StoreError as error:
                self.verdict.violations.append(f"the store failed: {error}")


@contextmanager
def counted(verdict: Verdict) -> Iterator[None]:
    """Count tries without an answer, and commits that had been made all the same."""

    def commit(plain: Callable[..., None]) -> Callable[..., None]:
        def counting(writer: Writer, *arguments: object) -> None:
            try:
                plain(writer, *arguments)
            except psycopg.Error as error:
                verdict.unanswered += not isinstance(error, UniqueViolation) and error.sqlstate != EPOCH_OVER
                raise

        return counting

    def confirm(plain: Callable[..., None]) -> Callable[..., None]:
        def counting(line: WritingLine, *arguments: object) -> None:
            verdict.found_out += 1
            plain(line, *arguments)

        return counting

    with replaced(Writer, "commit", commit), replaced(WritingLine, "_confirm", confirm):
        yield


# --- the parts --------------------------------------------------------------------------------------------


def cuts(stage: Stage, count: int) -> None:
    """Lose questions and answers of commits, also of those in a transaction of several statements."""
    with closing(CuttingProxy(stage.server.port)) as proxy, stage.working(proxy.port) as work:
        for number in range(1, count + 1):
            for _ in range(stage.chance.randint(0, 8)):
                work.commit()
            proxy.lose(stage.chance.choice(("question", "answer")), stage.chance.choice((0, 0, 0, 1, 2, 4)))
            while proxy.lost < number:
                work.commit()
            made()


def takeovers(stage: Stage, count: int) -> None:
    """Kill and stop brokers, or let them not renew their lease, while others wait."""
    with Rivals(stage.url, stage.folder, stage.chance) as rivals:
        for _ in range(count):
            rivals.take_over()
            made()
    stage.verdict.seconds += rivals.seconds
    stage.verdict.violations += rivals.violations


def kills(stage: Stage, count: int) -> None:
    """Crash the server and start it again while a broker commits."""
    with stage.working(stage.server.port) as work, ThreadPoolExecutor(1) as thread:
        killing = thread.submit(_kill, stage, work, count)
        try:
            while not killing.done():
                work.commit()
        except StoreError:
            killing.cancel()
            raise
        finally:
            work.is_over = True
        killing.result()


def _kill(stage: Stage, work: Workload, count: int) -> None:
    for _ in range(count):
        enough = work.acknowledged + stage.chance.randint(1, BETWEEN)
        while work.acknowledged < enough and not work.is_over:
            time.sleep(0.001)
        if work.is_over:
            return
        stage.server.stop()
        stage.server.start()
        made()


PARTS = {"cuts": cuts, "takeovers": takeovers, "kills": kills}


def prove(server: PostgresServer, part: str, count: int, seed: int, mutant: str = "") -> Verdict:
    """Return what one part has found, of the store or of a weaker one."""
    verdict = Verdict(count)
    with TemporaryDirectory(prefix="postgres-") as name, new_schema(server.url) as url:
        folder = Path(name)
        found(url, folder / "values")
        with MUTANTS[mutant][1](url) if mutant else nullcontext():
            PARTS[part](Stage(server, url, folder, seed, verdict), count)
        acknowledged, violations = judge(url, folder / "values", sorted(folder.glob("ledger*")))
    verdict.acknowledged = acknowledged
    verdict.violations += violations
    if part == "cuts" and not mutant and verdict.found_out < count // SHOWN:
        verdict.violations.append("too few commits had been made when their answers were lost: nothing is shown")
    return verdict


def prove_all(server: PostgresServer, counts: dict[str, int], seed: int) -> int:
    failed, noticed = False, 0
    for part, count in counts.items():
        verdict = prove(server, part, count, seed)
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
    parser.add_argument("--long", action="store_true", help="about twelve minutes")
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
