"""The queries that each database has its own statements for.

SQLite takes and releases the GIL for each row, so it returns many rows as one text; psycopg receives all rows at once.
Searches in stored failures use functions for JSON, which differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from dagorama_broker.store.checksums import SqlValue
from dagorama_broker.store.sql.reader import Reader


class StoreReader(Reader, ABC):
    """A reader of one of the databases that a store may be in."""

    @abstractmethod
    def leftovers(self, most: int) -> list[tuple[int, int]]:
        """Return up to `most` rows of `leftovers`, each with its checksum, in the order of their keys."""

    @abstractmethod
    def blocks_among(self, among: str, parameters: Sequence[SqlValue]) -> list[Any]:
        """Return rows of `node_blocks` in the order of their instances, each with its checksum at the end.

        `among`: a condition on the instance; the last of the `parameters` is how many rows to return at most.
        """

    @abstractmethod
    def sizes(self, instance: int, first: int, last: int) -> Iterable[tuple[int, int]]:
        """Return first key and size of the blocks of an instance from this first key to that one, in their order."""

    @abstractmethod
    def failed_with(self, instance: int, text: str, after: int, limit: int) -> list[int]:
        """Return up to `limit` keys of nodes of an instance after this one that failed themselves, in their order.

        Their type or message contains the text; ASCII letters are compared in any case. Checksums are not compared.
        """
