"""Errors of PostgreSQL as sentences for people, and which of them pass when the server is back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors

from dagorama_broker.errors import StoreError

#: Of an error that `fence` raises.
EPOCH_OVER = "DG001"

_MEANINGS: dict[type[psycopg.Error], str] = {
    errors.DiskFull: "the disk of the database server is full: free some space there",
    errors.OutOfMemory: "the database server has not enough memory",
    errors.InsufficientPrivilege: (
        "this user may not do that: grant it the right to create a schema in the database, or let its owner create the"
        " schema for it"
    ),
    errors.InvalidPassword: "the server refuses this user and password",
    errors.InvalidCatalogName: "the database does not exist: create it first",
    errors.ReadOnlySqlTransaction: "the server is read-only: it may be a replica, and the URL must name the primary",
    errors.UndefinedTable: "a table is missing: restore a copy, or choose another schema",
    errors.UndefinedColumn: "a column is missing: restore a copy, or choose another schema",
}
#: Errors of a server that stops, starts, or is not the primary at the moment.
_PASSING = (
    errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.TooManyConnections,
    errors.ConnectionException, errors.IdleInTransactionSessionTimeout, errors.ReadOnlySqlTransaction,
    errors.SerializationFailure, errors.DeadlockDetected,
)  # fmt: skip


def passes(error: psycopg.Error, connection: psycopg.Connection | None) -> bool:
    """Return whether the same may succeed on a new connection: the server was away, or another one leads now."""
    return isinstance(error, _PASSING) or connection is None or connection.closed or connection.broken


def sentence(error: BaseException) -> str:
    """Return an error of PostgreSQL in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    for kind, meaning in _MEANINGS.items():
        if isinstance(error, kind):
            return f"{meaning} ({text})"
    return text


@contextmanager
def translate_postgres_errors(shown: str) -> Iterator[None]:
    """Translate errors of PostgreSQL to a StoreError of one sentence that names the store."""
    try:
        yield
    except psycopg.Error as error:
        raise StoreError(f"{shown}: {sentence(error)}") from error
    except (OverflowError, UnicodeError) as error:
        raise StoreError(f"{shown}: {error}") from error
    except StoreError as error:
        if shown in str(error):
            raise
        raise type(error)(f"{shown}: {error}") from error
