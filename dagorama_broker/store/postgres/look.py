"""Answers what submissions want to know: by one query if all of them are new, as nearly all are."""

from __future__ import annotations

from dagorama_broker.model.looks import Seen, Wanted
from dagorama_broker.model.rows import NameRow
from dagorama_broker.store.postgres.connection import Session
from dagorama_broker.store.postgres.reader import PostgresReader
from dagorama_broker.store.sql.marks import read_name

_KNOWN = (
    "SELECT 1, id FROM instances WHERE id = ANY($1::bytea[]) UNION ALL SELECT 2, id FROM removed WHERE id ="
    " ANY($1::bytea[]) UNION ALL SELECT DISTINCT 3, origin FROM node_blocks WHERE origin = ANY($2::bytea[])"
)
_STORED, _REMOVED, _ORIGIN = 1, 2, 3
_NAMED = (
    "SELECT definition, name FROM instance_names WHERE (name, definition) IN"
    " (SELECT * FROM unnest($1::text[], $2::text[]))"
)


def look_at_once(session: Session, wanted: Wanted) -> Seen:
    """Return what is known of the wanted IDs, origins and names, without large values."""
    seen = Seen()
    cursor = session.raw.cursor(binary=True)
    origins = list({origin for origin, _ in wanted.blocks})
    found: dict[int, set[bytes]] = {_STORED: set(), _REMOVED: set(), _ORIGIN: set()}
    for kind, value in cursor.execute(_KNOWN, (list(wanted.instances), origins)):
        found[kind].add(value)
    seen.instances = found[_STORED] | found[_REMOVED]
    seen.origins = found[_ORIGIN]
    reader = PostgresReader(session)
    seen.removed = {id: row for id in found[_REMOVED] if (row := reader.removed(id)) is not None}
    for origin, before in wanted.blocks:
        if origin in seen.origins and (block := reader.last_block(origin, before)) is not None:
            seen.blocks[origin, before] = block
    if wanted.names:
        seen.names = _names(session, reader, wanted)
    return seen


def _names(session: Session, reader: PostgresReader, wanted: Wanted) -> dict[tuple[str, str], NameRow]:
    definitions, names = map(list, zip(*wanted.names, strict=True))
    known = session.raw.cursor(binary=True).execute(_NAMED, (names, definitions)).fetchall()
    rows = (read_name(reader, definition, name) for definition, name in known)
    return {(row.definition, row.name): row for row in rows if row is not None}
