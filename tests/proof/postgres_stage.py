"""A PostgreSQL store that works while something happens to it, and what is found of it afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
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

from .postgres_judge import found, judge
from .postgres_mutants import replaced
from .postgres_workload import Ledger, Workload
from .progress import patience


@dataclass
class Verdict:
    events: int  #: cuts, takeovers, kills or promotions
    acknowledged: int = 0  #: commits
    unanswered: int = 0  #: tries to commit
    found_out: int = 0  #: commits that turned out to be made by such a try
    seconds: list[float] = field(default_factory=list)  #: from a death to the next acknowledged commit
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.acknowledged:,} commits acknowledged"
        if self.unanswered:
            text += f", {self.unanswered} tries without an answer, of which {self.found_out} had been made"
        if self.seconds:
            text += f", {median(self.seconds):.2f} s from a death to the next commit (at most {max(self.seconds):.2f})"
        return f"{text}, {len(self.violations)} violations"


class Stage:
    """A store in a schema, the ledger of what is done with it, and its verdict."""

    def __init__(self, url: str, folder: Path, seed: int, verdict: Verdict) -> None:
        self.url = url
        self.folder = folder
        self.chance = random.Random(seed)
        self.verdict = verdict

    @contextmanager
    def working(self, url: str = "") -> Iterator[Workload]:
        """Yield the work of a broker in this process; `url`: by another way to the store than its own."""
        store = PostgresStore(url or self.url, self.folder / "values", patience(60))
        with closing(Ledger(self.folder / "ledger")) as ledger, closing(store), counted(self.verdict):
            try:
                store.open()
                work = Workload(store, store.take(), ledger, self.chance)
                yield work
            except StoreError as error:
                self.verdict.violations.append(f"the store failed: {error}")


@contextmanager
def judged(url: str, events: int, seed: int) -> Iterator[Stage]:
    """Yield a new store, and judge it at the end of the context."""
    verdict = Verdict(events)
    with TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        found(url, folder / "values")
        yield Stage(url, folder, seed, verdict)
        verdict.acknowledged, violations = judge(url, folder / "values", sorted(folder.glob("ledger*")))
    verdict.violations += violations


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
