"""Prepares the database at a start: makes or migrates the tables, and refuses a server that would lose commits."""

from __future__ import annotations

import logging

from dagorama_broker.errors import StoreError
from dagorama_broker.store.postgres.address import Address
from dagorama_broker.store.postgres.connection import Session
from dagorama_broker.store.postgres.schema import LATEST_VERSION, LEADERSHIP, MIGRATIONS
from dagorama_broker.store.sql.counters import check_numbers, read_number, write_number

log = logging.getLogger("dagorama_broker")

#: The oldest server that has all that is used.
_OLDEST, _OLDEST_NAME = 14_00_00, "14"
#: Encodings of a database that take all text: Unicode, and bytes as they are.
_ENCODINGS = ("UTF8", "SQL_ASCII")
#: Connections that a broker and its tools should find free.
_SPARE = 10
#: "DAGO", for a lock of the transaction that makes the first tables: no two brokers make them at once.
_LOCK = 0x4441474F
_VERSION = "version"
_HAS_TABLE = "SELECT to_regclass(?) IS NOT NULL"
_HAS_SCHEMA = "SELECT to_regnamespace(?) IS NOT NULL"
_FREE_CONNECTIONS = (
    "SELECT current_setting('max_connections')::int - (SELECT count(*) FROM pg_stat_activity WHERE backend_type ="
    " 'client backend')"
)


def check_server(session: Session, address: Address) -> None:
    """Raise StoreError if the server is too old, or may lose what it has committed; warn if it has few connections."""
    if session.raw.info.server_version < _OLDEST:
        raise StoreError(
            f"the server is PostgreSQL {session.setting('server_version')}, and {_OLDEST_NAME} or newer is needed"
        )
    unsafe = [name for name in ("fsync", "full_page_writes") if session.setting(name) == "off"]
    if unsafe and not address.is_unsafe:
        raise StoreError(
            f"the server runs with {' and '.join(f'{name}=off' for name in unsafe)}, so it may lose commits when it"
            " crashes: change that, or add unsafe=1 to the URL for a database whose loss does not matter"
        )
    if (encoding := session.setting("server_encoding")) not in _ENCODINGS:
        raise StoreError(
            f"the encoding of the database is {encoding}, which cannot hold all names and texts: create one with"
            " UTF8 (createdb --encoding UTF8 --template template0)"
        )
    (free,) = session.execute(_FREE_CONNECTIONS).fetchall()[0]
    if free < _SPARE:
        log.warning("%s: the server has %d connections left (max_connections); a broker uses five", address.shown, free)


def make_leadership(session: Session, address: Address) -> None:
    """Make the schema and what decides who leads, if they are missing."""
    if _has(session, f"{address.schema}.leader"):
        return
    with session.transaction():
        session.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
        # IF NOT EXISTS would need the right to create schemas, even if the schema exists.
        (exists,) = session.execute(_HAS_SCHEMA, (address.schema,)).fetchall()[0]
        if not exists:
            session.script(f"CREATE SCHEMA {address.schema}")
        session.script(LEADERSHIP)


def refuse_newer(session: Session, address: Address) -> int:
    """Return the version of the tables, 0 if there are none. Raise StoreError if a newer dagorama has written them."""
    version = read_number(session, _VERSION) if _has(session, f"{address.schema}.meta") else 0
    if version > LATEST_VERSION:
        raise StoreError(
            f"it was written by a newer dagorama (its version is {version}, this one knows up to {LATEST_VERSION}):"
            " upgrade this broker, or choose another schema"
        )
    return version


def migrate(session: Session, address: Address) -> None:
    """Make the tables, or bring them to this version. Call it in the transaction that takes the lease."""
    version = refuse_newer(session, address)
    if _has(session, f"{address.schema}.meta"):
        check_numbers(session)
    for number, script in enumerate(MIGRATIONS, 1):
        if number > version:
            session.script(script)
            write_number(session, _VERSION, number)


def _has(session: Session, table: str) -> bool:
    (found,) = session.execute(_HAS_TABLE, (table,)).fetchall()[0]
    return bool(found)
