"""What a start looks for in a small store, because no later look would find it.

A row is checked whenever it is read; damage to its key hides it from whoever looks for it there. Then a node that has
ended seems not to have, and would run again.
"""

from __future__ import annotations

import sqlite3

from dagorama_broker.errors import StoreError
from dagorama_broker.store.checksums import check_row, damaged, outcome_sum

#: Ends of nodes that are compared with their checksums, the latest: about a third of a second.
ENDS = 250_000
_OUTCOMES = "SELECT key, chk, state, attempt, culprit, ended, refs FROM outcomes ORDER BY key DESC LIMIT ?"
_RESOLVED = "SELECT key, state, culprit, ended, chk FROM resolved ORDER BY key DESC LIMIT ?"
_OF_NOBODY = "SELECT key FROM {table} WHERE key NOT IN (SELECT key FROM nodes) LIMIT 1"


def look_over(connection: sqlite3.Connection) -> None:
    """Raises StoreError with what is damaged."""
    found: str = connection.execute("PRAGMA integrity_check (1)").fetchone()[0]
    if found != "ok":
        raise StoreError(f"it is damaged: put back a copy, or choose another store ({' '.join(found.split())})")
    for key, chk, state, attempt, culprit, ended, refs in connection.execute(_OUTCOMES, (ENDS,)):
        if outcome_sum(key, state, attempt, culprit, ended, refs) != chk >> 32:
            raise damaged("outcomes", key)
    for *row, chk in connection.execute(_RESOLVED, (ENDS,)):
        check_row("resolved", row[0], chk, row)
    for table in ("outcomes", "resolved"):
        for (key,) in connection.execute(_OF_NOBODY.format(table=table)):
            raise damaged(table, key)
