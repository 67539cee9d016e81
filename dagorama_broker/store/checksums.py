"""Rows with their checksums: made when written, compared when read, so that a damaged row is an error, never an answer.

Rows of nodes and outcomes carry two sums in one number: the upper half is of what the heart needs, the lower of the
payload, so that each can be read and checked without the other. Both depend on the key: a row under another's key
does not pass. Other rows carry one sum of all their columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from struct import Struct, unpack
from typing import TypeAlias
from zlib import crc32

from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import Function
from dagorama_broker.model.rows import NodeRow, OutcomeRow, ProgressRow, RunRow

SqlValue: TypeAlias = "int | float | str | bytes | None"

_pack_node = Struct("<qqq").pack
_pack_outcome = Struct("<qqqqd").pack
_LOW = 0xFFFFFFFF
_HIGH = 0x7FFFFFFF  # SQLite's integers are signed


#: What of a function is kept as one text, so that a new option needs no new column.
_OPTIONS = (
    "timeout", "queue_timeout", "priority", "max_concurrency", "delay", "max_deaths", "eager", "timeout_is_final",
    "key_id", "class_code", "adopted_under",
)


def pack_options(function: Function) -> str:
    """Those options that are set, as JSON."""
    return json.dumps({name: value for name in _OPTIONS if (value := getattr(function, name))})


def with_options(function: Function, packed: str) -> Function:
    """The inverse of `pack_options`."""
    return replace(function, **json.loads(packed)) if packed != "{}" else function


def unpack_sources(packed: bytes) -> list[int]:
    """Keys of a node's sources, whether or not it takes their failures."""
    return [abs(key) for key in unpack_keys(packed)]


def unpack_keys(packed: bytes) -> tuple[int, ...]:
    """Keys packed as little-endian 64-bit integers."""
    return unpack(f"<{len(packed) // 8}q", packed) if packed else ()


def row_sum(row: Sequence[SqlValue]) -> int:
    """The checksum of a row of any table but nodes and outcomes."""
    return crc32(repr(tuple(row)).encode())


def run_sum(
    first_key: int, origin: bytes, first: int, size: int, instance: int, digest: bytes, maker: int
) -> int:
    """The checksum of a row of `runs`; rows from before the column `maker` was added have 0 there."""
    row = first_key, origin, first, size, instance, digest
    return row_sum((*row, maker) if maker else row)


def adopted_sum(key: int, function: int, adoption: int) -> int:
    """The checksum of a row of `adopted`; rows from before the column `adoption` was added have 0 there."""
    return row_sum((key, function, adoption) if adoption else (key, function))


def progress_sum(row: Sequence[SqlValue]) -> int:
    """The checksum of a row of `progress`; rows from before its last column was added have 0 there."""
    return row_sum(row if row[-1] else row[:-1])


def node_sum(key: int, instance: int, function: int, sources: bytes) -> int:
    return crc32(sources, crc32(_pack_node(key, instance, function))) & _HIGH


def outcome_sum(key: int, state: int, attempt: int, culprit: int, ended: float, refs: bytes) -> int:
    return crc32(refs, crc32(_pack_outcome(key, state, attempt, culprit, ended))) & _HIGH


def payload_sum(key: int, payload: bytes | None, more: bytes | None = None) -> int:
    return crc32(more or b"", crc32(payload or b"", key & _LOW))


def check_row(table: str, key: object, chk: int, row: Sequence[SqlValue]) -> None:
    """Raises StoreError naming the table and the key where a row is not as it was written."""
    if row_sum(row) != chk:
        raise damaged(table, key)


def check_payload(table: str, key: int, chk: int, payload: bytes | None, more: bytes | None = None) -> None:
    if payload_sum(key, payload, more) != chk & _LOW:
        raise damaged(table, key)


def check_progress(row: Sequence[SqlValue], chk: int) -> None:
    if progress_sum(row) != chk:
        raise damaged("progress", row[0])


def damaged(table: str, key: object) -> StoreError:
    shown = key.hex() if isinstance(key, bytes) else key
    return StoreError(f"row {shown} of table {table} is damaged: its content does not match its checksum")


# --- records to rows, in the order of the columns in `sqlite` ------------------------------------------


def node_rows(nodes: Iterable[NodeRow]) -> Iterator[tuple[int, int, int, int, bytes, bytes]]:
    # One expression for each row, calls spelled out: this and the next function are most of what a node costs here.
    return (
        (
            key,
            (crc32(sources, crc32(_pack_node(key, instance, function))) & _HIGH) << 32 | crc32(arguments, key & _LOW),
            instance,
            function,
            sources,
            arguments,
        )
        for key, instance, function, sources, arguments in nodes
    )


def outcome_rows(
    outcomes: Iterable[OutcomeRow],
) -> Iterator[tuple[int, int, int, int, int, float, bytes, bytes | None, bytes | None]]:
    return (
        (
            key,
            (crc32(refs, crc32(_pack_outcome(key, state, attempt, culprit, ended))) & _HIGH) << 32
            | payload_sum(key, value, failure),
            state,
            attempt,
            culprit,
            ended,
            refs,
            value,
            failure,
        )
        for key, state, attempt, refs, value, culprit, failure, ended in outcomes
    )


def run_rows(runs: Iterable[RunRow]) -> Iterator[tuple[SqlValue, ...]]:
    return (
        (
            first_key, origin, first, size, instance, digest, maker,
            run_sum(first_key, origin, first, size, instance, digest, maker),
        )
        for origin, first, size, first_key, instance, digest, maker in runs
    )


def progress_rows(rows: Iterable[ProgressRow]) -> Iterator[tuple[SqlValue, ...]]:
    for row in rows:
        plain = row._replace(retry_at=float(row.retry_at), pause=float(row.pause))
        yield *plain, progress_sum(plain)


def summed(rows: Iterable[Sequence[SqlValue]]) -> Iterator[tuple[SqlValue, ...]]:
    """Any other rows, each with its checksum after its last column."""
    return ((*row, row_sum(row)) for row in rows)
