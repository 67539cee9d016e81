"""The judgement of a PostgreSQL store: it holds what the ledgers say, once, and nothing after a takeover.

A journal in the database, which triggers write, keeps the order: each takeover, each commit's number, and each count of
a failed attempt, which a second write of the same commit would leave unseen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from dagorama_broker.errors import StoreError
from dagorama_broker.store.postgres.address import parse_address
from dagorama_broker.store.postgres.store import PostgresStore

from .postgres_workload import EPOCH_BITS, Intent, arguments_of, count_of, lines_of, value_of

_JOURNAL = """
CREATE TABLE journal (
    place bigint GENERATED ALWAYS AS IDENTITY, what text NOT NULL, epoch bigint NOT NULL, number bigint NOT NULL
);
CREATE FUNCTION took() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO journal (what, epoch, number) VALUES ('took', NEW.epoch, 0); RETURN NULL; END $$;
CREATE FUNCTION committed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO journal (what, epoch, number) VALUES ('committed', NEW.epoch, NEW.sequence); RETURN NULL; END $$;
CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO journal (what, epoch, number) VALUES ('counted', NEW.key, NEW.failed_attempts); RETURN NULL; END $$;
CREATE TRIGGER took AFTER UPDATE ON leader FOR EACH ROW WHEN (NEW.epoch != OLD.epoch) EXECUTE FUNCTION took();
CREATE TRIGGER committed AFTER INSERT ON commits FOR EACH ROW EXECUTE FUNCTION committed();
CREATE TRIGGER counted AFTER INSERT OR UPDATE ON progress FOR EACH ROW EXECUTE FUNCTION counted();
"""
#: Keys of one query.
_TOGETHER = 2_000


def statement(url: str, text: str) -> list[tuple[Any, ...]]:
    """Run a statement in the schema of a store; the rows of its result."""
    address = parse_address(url)
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        connection.execute(f"SET search_path = {address.schema}".encode())
        cursor = connection.execute(text.encode())
        return cursor.fetchall() if cursor.description else []


def found(url: str, values: Path) -> None:
    """Make the tables of a store, and its journal."""
    store = PostgresStore(url, values)
    store.open()
    try:
        store.take()
    finally:
        store.close()
    statement(url, _JOURNAL)


@dataclass
class Books:
    """The content of the ledgers."""

    meant: dict[tuple[int, int], Intent] = field(default_factory=dict)
    durable: set[tuple[int, int]] = field(default_factory=set)
    live: dict[int, set[int]] = field(default_factory=dict)  #: by the epoch that began with it

    def read(self, ledger: Path) -> None:
        for kind, what in lines_of(ledger):
            if kind == "meant":
                intent = Intent(*what)  # type: ignore[arg-type]  # as it was written
                self.meant[intent.epoch, intent.number] = intent
            elif kind == "durable":
                epoch, number, _ = what
                self.durable.add((epoch, number))  # type: ignore[arg-type]  # as it was written
            else:
                epoch, keys = what
                self.live[epoch] = set(keys)  # type: ignore[index, call-overload]  # as it was written


def judge(url: str, values: Path, ledgers: Iterable[Path]) -> tuple[int, list[str]]:
    """Return how many commits were acknowledged, and a sentence for each that is lost, torn, doubled or too late."""
    books = Books()
    for ledger in ledgers:
        books.read(ledger)
    store = PostgresStore(url, values)
    try:
        books.live[1 << 60] = {node.key for node in store.live().nodes}
        rows = Rows(store, url)
        return len(books.durable), [*rows.judged(books), *_live(books), *_journal(url, books)]
    except StoreError as error:
        return len(books.durable), [f"the store cannot be read: {error}"]
    finally:
        store.close()


class Rows:
    """The rows of the database, read with their checksums."""

    def __init__(self, store: PostgresStore, url: str) -> None:
        nodes = [key for (key,) in statement(url, "SELECT key FROM nodes")]
        ended = statement(url, "SELECT key, attempt FROM outcomes")
        self.nodes: dict[int, bytes] = {}
        self.values: dict[int, bytes] = {}
        self.attempts: dict[int, int] = dict(ended)
        for some in _parts(nodes):
            self.nodes |= store.arguments(some)
        for some in _parts([key for key, _ in ended]):
            self.values |= store.values(some)
        self.counts = Counter(statement(url, "SELECT epoch, number FROM journal WHERE what = 'counted'"))

    def judged(self, books: Books) -> Iterator[str]:
        nodes, ended, counts = set(self.nodes), set(self.values), set(self.counts)
        for name, intent in books.meant.items():
            keys = range(intent.first, intent.first + intent.nodes)
            there = [self.nodes.get(key) == arguments_of(key) for key in keys]
            there += [self._has_ended(key, intent) for key in intent.ended]
            there += [(key, count_of(intent)) in counts for key in intent.counted]
            if name in books.durable and not all(there):
                yield f"commit {name} was acknowledged, and {there.count(False)} of {len(there)} rows are lost"
            elif any(there) != all(there):
                yield f"commit {name} is torn: {there.count(False)} of {len(there)} rows are not there"
            nodes.difference_update(keys)
            ended.difference_update(intent.ended)
        yield from (f"count {count} was written {times} times" for count, times in self.counts.items() if times > 1)
        yield from (f"node {key} was meant by no commit" for key in sorted(nodes | ended))

    def _has_ended(self, key: int, intent: Intent) -> bool:
        attempt = (intent.epoch << EPOCH_BITS) + intent.number
        return self.attempts.get(key) == attempt and self.values[key] == value_of(key, intent.epoch)


def _parts(keys: list[int]) -> Iterator[list[int]]:
    return (keys[at : at + _TOGETHER] for at in range(0, len(keys), _TOGETHER))


def _live(books: Books) -> Iterator[str]:
    """Each broker has begun with the nodes that were durable by then and had not ended."""
    for epoch, live in sorted(books.live.items()):
        must, may = set[int](), set[int]()
        ended, perhaps_ended = set[int](), set[int]()
        for name, intent in books.meant.items():
            if intent.epoch >= epoch:
                continue
            keys = range(intent.first, intent.first + intent.nodes)
            may.update(keys)
            perhaps_ended.update(intent.ended)
            if name in books.durable:
                must.update(keys)
                ended.update(intent.ended)
        if lost := must - perhaps_ended - live:
            yield f"the broker of epoch {epoch} did not find {len(lost)} unfinished nodes"
        if wrong := live - (may - ended):
            yield f"the broker of epoch {epoch} found {len(wrong)} nodes that had ended or were never made"


def _journal(url: str, books: Books) -> Iterator[str]:
    """Numbers of commits are there once, and none of an epoch comes after the next one was taken."""
    leads, seen = 1, Counter[tuple[int, int]]()
    query = "SELECT what, epoch, number FROM journal WHERE what != 'counted' ORDER BY place"
    for what, epoch, number in statement(url, query):
        if what == "took":
            leads = epoch
        else:
            seen[epoch, number] += 1
            if epoch != leads:
                yield f"commit {number} of epoch {epoch} was made after epoch {leads} had begun"
    yield from (f"commit {name} was made {times} times" for name, times in seen.items() if times > 1)
    numbers = Counter(epoch for epoch, _ in seen)
    acknowledged = Counter(epoch for epoch, _ in books.durable)
    for epoch, count in acknowledged.items():
        if not count + 1 <= numbers[epoch] <= count + 2:  # the first is of taking the store, the last has no answer yet
            yield f"epoch {epoch} has {numbers[epoch]} commits in the database, and {count} were acknowledged"
