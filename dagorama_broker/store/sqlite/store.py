"""The durable store: one SQLite file and a folder of large values next to it. Records in, records out, no rules."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dagorama_broker.model.looks import Seen, Wanted, look_into
from dagorama_broker.model.queries import Usage
from dagorama_broker.model.rows import Changes
from dagorama_broker.store.folders import size_of, usage_of
from dagorama_broker.store.large_values import LargeFiles
from dagorama_broker.store.objects.large_objects import LargeObjects
from dagorama_broker.store.protocol import Unshared
from dagorama_broker.store.sql.connection import Connection
from dagorama_broker.store.sql.counters import write_number
from dagorama_broker.store.sql.store import SqlStore
from dagorama_broker.store.sqlite.commit_count import COUNT_TIME
from dagorama_broker.store.sqlite.connection import BUSY_SECONDS
from dagorama_broker.store.sqlite.database import Database
from dagorama_broker.store.sqlite.view import SqliteView

T = TypeVar("T")

log = logging.getLogger("dagorama_broker")

_ANY_LARGE = "SELECT 1 FROM large_refs LIMIT 1"


class SqliteStore(Unshared, SqlStore):
    """A `Store` in a file."""

    near = True

    def __init__(
        self,
        path: Path,
        busy: float = BUSY_SECONDS,
        count_together: float = COUNT_TIME,
        values: Path | LargeObjects | None = None,
    ) -> None:
        """`busy`: seconds for which another program may lock the file; `count_together`: see `CommitCount`.

        `values`: where large values are; None: in a folder next to the file.
        """
        # SQLite follows links too, so the folder of large values must be next to the link's target.
        self.path = Path(os.path.realpath(path))
        self._database = Database(self.path, busy, count_together)
        folder = self.path.with_name(self.path.name + ".values")
        large = values if isinstance(values, LargeObjects) else LargeFiles(values or folder)
        super().__init__(self._database.source, self._database.quick, large)
        self.view = SqliteView(self._database.viewed)

    def __repr__(self) -> str:
        return f"sqlite:///{self.path}"

    # --- opening and closing ------------------------------------------------------------------------

    def open(self) -> None:
        self._database.reach()
        if self.objects is not None:
            self.objects.open()

    def take(self) -> int:
        try:
            with self._database.taken():
                self._database.prepare()
                if self.objects is None:
                    self._open_values(b"")  # before the epoch: a folder that cannot be used costs none
                epoch = self._database.begin()
                if self.objects is not None:
                    self._open_values(self.secret)
                self._warn_of_lost_values()
                return epoch
        except BaseException:
            self._large.close()
            raise

    def _warn_of_lost_values(self) -> None:
        refers_to_values = self._quick.read(lambda reader: reader.connection.execute(_ANY_LARGE).fetchone())
        if refers_to_values and self.values_folder is not None and not self.values_folder.is_dir():
            log.error(
                "%s is missing, with the large values that nodes refer to: restore it, or those nodes fail when a"
                " worker needs the values", self.values_folder,
            )  # fmt: skip

    def close(self) -> None:
        """Raise StoreError if a start would not find the store, which was saved if possible; close it in any case."""
        try:
            self._database.close()
        finally:
            self._large.close()

    def accept_loss(self) -> str:
        """Make the next start accept the database as it is; return what is lost, or an empty text."""
        return self._database.accept_loss()

    @property
    def logs_path(self) -> Path | None:
        return self.path.with_name(self.path.name + ".logs")

    @property
    def secret(self) -> bytes:
        return self._database.secret

    @property
    def last_used(self) -> float:
        return self._database.last_used

    def usage(self) -> Usage:
        return usage_of(self.path, self._values_size())

    def size(self) -> int:
        return size_of(self.path)

    # --- writing ------------------------------------------------------------------------------------

    def commit(self, changes: Changes) -> None:
        is_settled = self._database.commit(changes)
        if changes.large or not is_settled:
            self._check_values()

    def transact(self, work: Callable[[Connection], T]) -> T:
        return self._database.transact(work)

    def continue_after(self, epoch: int) -> None:
        self.transact(lambda connection: write_number(connection, "epoch", epoch))

    def sweep(self, most: int) -> bool:
        is_more, unnamed = self._database.sweep(most)
        self._large.unnamed(unnamed)
        return is_more

    def look(self, wanted: Wanted) -> Seen:
        return look_into(self, wanted)
