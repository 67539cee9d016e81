"""The store's secret: random bytes that are made once and never leave the broker. Proofs of grants are made with it."""

from __future__ import annotations

import os
import sqlite3

from dagorama_broker.store.checksums import check_row, row_sum

SECRET_BYTES = 32
_NAME = "grants"


def new_secret() -> bytes:
    return os.urandom(SECRET_BYTES)


def kept_secret(connection: sqlite3.Connection) -> bytes:
    """Return the secret, made now if there is none yet; inside a transaction. Raises StoreError if it is damaged."""
    rows = connection.execute("SELECT name, value, chk FROM secrets").fetchall()
    for name, value, chk in rows:
        check_row("secrets", name, chk, (name, value))
    if rows:
        (secret,) = (value for _, value, _ in rows)
        return bytes(secret)
    secret = new_secret()
    connection.execute("INSERT INTO secrets VALUES (?, ?, ?)", (_NAME, secret, row_sum((_NAME, secret))))
    return secret
