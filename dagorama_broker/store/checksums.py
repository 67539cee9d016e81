"""Checksums of rows: computed on write, compared on read, so that a damaged row is an error and never an answer.

Rows of nodes and outcomes carry two sums in one number: the upper half covers what the scheduler needs, the lower half
the payload, so that each can be read and checked without the other. Both depend on the key, so a row under another key
is damaged too. Other rows carry one sum of all their columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from struct import Struct
from typing import Any, TypeAlias
from zlib import crc32

from dagorama_broker.errors import StoreError
from dagorama_broker.model.domain import Function, Rate, SharedLimit, unpack_keys
from dagorama_broker.model.rows import NodeBlockRow, NodeRow, OutcomeRow, ProgressRow

SqlValue: TypeAlias = "int | float | str | bytes | None"

_pack_node = Struct("<qqq").pack
_pack_outcome = Struct("<qqqqdqq").pack
_LOW = 0xFFFFFFFF
_HIGH = 0x7FFFFFFF  # SQLite's integers are signed

#: The options of a function that are stored as one text, so that a new option needs no new column.
_OPTIONS = (
    "timeout",
    "queue_timeout",
    "priority",
    "max_concurrency",
    "delay",
    "max_deaths",
    "stream_children",
    "timeout_is_final",
    "key_id",
    "class_code",
    "rebound_under",
    "rate",
    "rate_by_key",
    "concurrency_of_all",
    "limit",
    "cached",
    "cache_ttl",
)


def pack_options(function: Function) -> str:
    """Return the options that are set, as JSON."""
    return json.dumps({name: value for name in _OPTIONS if (value := getattr(function, name))})


def with_options(function: Function, packed: str) -> Function:
    """Return the function with options that `pack_options` has packed. Raise StoreError if one is unknown."""
    if packed == "{}":
        return function
    options = json.loads(packed)
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise StoreError(
            f"the store has {function.name} with the option {unknown[0]!r}, which this version does not know: an"
            " unreleased or newer version of dagorama has written it; use that version, or begin with a new store"
        )
    if "rate" in options:
        options["rate"] = Rate(*options["rate"])
    if "limit" in options:
        name, rate, max_concurrency = options["limit"]
        options["limit"] = SharedLimit(name, rate and Rate(*rate), max_concurrency)
    return replace(function, **options)


def unpack_sources(packed: bytes) -> list[int]:
    """Return the keys of a node's sources, whether or not it tolerates their failures."""
    return [abs(key) for key in unpack_keys(packed)]


def row_sum(row: Sequence[SqlValue]) -> int:
    """Return the checksum of a row of any table but nodes and outcomes."""
    return crc32(repr(tuple(row)).encode())


def node_sum(key: int, instance: int, function: int, sources: bytes) -> int:
    """Return the upper half of the checksum of a row of `nodes`."""
    return crc32(sources, crc32(_pack_node(key, instance, function))) & _HIGH


def outcome_sum(
    key: int, state: int, attempt: int, root_cause: int, ended: float, microseconds: int, worker: int, refs: bytes
) -> int:
    """Return the upper half of the checksum of a row of `outcomes`."""
    return crc32(refs, crc32(_pack_outcome(key, state, attempt, root_cause, ended, microseconds, worker))) & _HIGH


def payload_sum(key: int, payload: bytes | None, more: bytes | None = None) -> int:
    """Return the lower half of the checksum of a row of `nodes` or `outcomes`."""
    return crc32(more or b"", crc32(payload or b"", key & _LOW))


def check_row(table: str, key: object, chk: int, row: Sequence[SqlValue]) -> None:
    """Raise StoreError, with the table and the key, if a row does not match its checksum."""
    if row_sum(row) != chk:
        raise damaged(table, key)


def checked_rows(table: str, rows: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
    """Yield rows without their last column, which is their checksum; the first one is the key.

    Raises StoreError, with the table and the key, if a row does not match its checksum.
    """
    for *row, chk in rows:
        check_row(table, row[0], chk, row)
        yield row


def check_payload(table: str, key: int, chk: int, payload: bytes | None, more: bytes | None = None) -> None:
    """Raise StoreError if the payload of a row does not match its checksum."""
    if payload_sum(key, payload, more) != chk & _LOW:
        raise damaged(table, key)


def damaged(table: str, key: object) -> StoreError:
    """Return the error for a damaged row."""
    shown = key.hex() if isinstance(key, bytes) else key
    return StoreError(f"row {shown} of table {table} is damaged: its content does not match its checksum")


# --- records to rows, in the order of the columns in `schema` ------------------------------------------


def node_rows(nodes: Iterable[NodeRow]) -> Iterator[tuple[int, int, int, int, bytes, bytes]]:
    # One expression for each row, with the calls inlined: this and the next function are most of a node's cost here.
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
) -> Iterator[tuple[int, int, int, int, int, float, int, int, bytes, bytes | None, bytes | None]]:
    return (
        (
            key,
            (crc32(refs, crc32(_pack_outcome(key, state, attempt, root_cause, ended, us, worker))) & _HIGH) << 32
            | payload_sum(key, value, failure),
            state,
            attempt,
            root_cause,
            ended,
            us,
            worker,
            refs,
            value,
            failure,
        )
        for key, state, attempt, refs, value, root_cause, failure, ended, us, worker, _ in outcomes
    )


def block_rows(blocks: Iterable[NodeBlockRow]) -> Iterator[tuple[SqlValue, ...]]:
    return summed(
        (first_key, origin, first, size, instance, digest, creator, created)
        for origin, first, size, first_key, instance, digest, creator, created in blocks
    )


def progress_rows(rows: Iterable[ProgressRow]) -> Iterator[tuple[SqlValue, ...]]:
    return summed(row._replace(retry_at=float(row.retry_at), pause=float(row.pause)) for row in rows)


def summed(rows: Iterable[Sequence[SqlValue]]) -> Iterator[tuple[SqlValue, ...]]:
    """Yield rows of any other table, each with its checksum after its last column."""
    return ((*row, row_sum(row)) for row in rows)
