"""Faults of the PostgreSQL store that the proof must notice, each with the part that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from dagorama_broker.store.postgres.connection import Session
from dagorama_broker.store.postgres.database import WritingLine
from dagorama_broker.store.postgres.writer import Writer

from .postgres_judge import statement

_OPEN_FENCE = """
CREATE OR REPLACE FUNCTION fence(mine bigint, number bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM leader FOR SHARE;
    INSERT INTO commits VALUES (mine, number);
END $$
"""


@contextmanager
def _open_fence(url: str) -> Iterator[None]:
    """The fence does not compare the epoch."""
    statement(url, _OPEN_FENCE)
    yield


@contextmanager
def _new_numbers(url: str) -> Iterator[None]:
    """A commit that got no answer is sent again under another number."""

    def write(plain: Callable[..., None]) -> Callable[..., None]:
        sent = iter(range(2, 1 << 40))
        return lambda self, changes, number: plain(self, changes, next(sent))

    with replaced(Writer, "commit", write):
        yield


@contextmanager
def _no_second_try(url: str) -> Iterator[None]:
    """A commit that got no answer is taken for a durable one."""

    def write(plain: Callable[..., None]) -> Callable[..., None]:
        def commit(self: Writer, changes: Any, number: int) -> None:
            try:
                plain(self, changes, number)
            except psycopg.Error:
                if not self.session.is_broken:
                    raise

        return commit

    with replaced(Writer, "commit", write):
        yield


@contextmanager
def _early_answers(url: str) -> Iterator[None]:
    """The server answers before a commit is on its disk."""

    def begin(plain: Callable[..., Writer]) -> Callable[..., Writer]:
        def writer_on(self: WritingLine, session: Session) -> Writer:
            session.script("SET synchronous_commit = off")
            return plain(self, session)

        return writer_on

    with replaced(WritingLine, "_writer_on", begin):
        yield


@contextmanager
def replaced(owner: type, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """Put another function in the place of one of a class for the length of the block."""
    plain = getattr(owner, name)
    setattr(owner, name, change(plain))
    try:
        yield
    finally:
        setattr(owner, name, plain)


#: By name: the part of the proof that must notice it, and the fault, which is put into the store at a URL.
MUTANTS = {
    "fence without its epoch": ("takeovers", _open_fence),
    "another number for each try": ("cuts", _new_numbers),
    "no second try": ("cuts", _no_second_try),
    "answers before the disk": ("kills", _early_answers),
}
