"""The tables that most commits write to, and the statements that write many of their rows at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from dagorama_broker.model.rows import Changes, InstanceEnd
from dagorama_broker.store.checksums import (
    SqlValue,
    block_rows,
    node_rows,
    outcome_rows,
    progress_rows,
    row_sum,
    summed,
)
from dagorama_broker.store.postgres.binary import ARRAY_OIDS, pack_array
from dagorama_broker.store.sql.connection import replacing
from dagorama_broker.store.sql.writer import (
    INSTANCE_COLUMNS,
    NODE_COLUMNS,
    OUTCOME_COLUMNS,
    PROGRESS_COLUMNS,
    end_row,
)

Row = Sequence[SqlValue]
_TYPES = {"q": "int8[]", "d": "float8[]", "y": "bytea[]", "t": "text[]"}


class Table(NamedTuple):
    """Columns in the order of the rows, the letters of their types, and what follows INSERT ... SELECT."""

    name: str
    columns: tuple[str, ...]
    kinds: str
    otherwise: str = ""
    is_update: bool = False

    def statement(self, first: int) -> str:
        """Return the statement whose parameters are one array for each column, from this number on."""
        arrays = ", ".join(f"${first + at}::{_TYPES[kind]}" for at, kind in enumerate(self.kinds))
        names = ", ".join(self.columns)
        if self.is_update:
            key, *changed = self.columns
            changes = ", ".join(f"{column} = new.{column}" for column in changed)
            source = f"unnest({arrays}) AS new ({names})"
            return f"UPDATE {self.name} SET {changes} FROM {source} WHERE {self.name}.{key} = new.{key}"
        return f"INSERT INTO {self.name} ({names}) SELECT * FROM unnest({arrays}) {self.otherwise}"

    @property
    def oids(self) -> list[int]:
        return [ARRAY_OIDS[kind] for kind in self.kinds]

    def arrays(self, rows: Iterable[Row]) -> list[bytes]:
        """Return the parameters for rows, of which there is at least one."""
        columns = zip(*rows, strict=True)
        return [pack_array(kind, column) for kind, column in zip(self.kinds, columns, strict=True)]


NODES = Table("nodes", NODE_COLUMNS, "qqqqyy")
OUTCOMES = Table("outcomes", OUTCOME_COLUMNS, "qqqqqdqqyyy")
BLOCKS = Table(
    "node_blocks",
    ("first_key", "origin", "first", "size", "instance", "digest", "creator", "created", "chk"),
    "qyqqqyqqq",
)
INSTANCES = Table("instances", INSTANCE_COLUMNS, "qytydqqdqq")
ENDS = Table("instances", ("key", "ended", "failed", "end_chk"), "qdqq", is_update=True)
RESOLVED = Table("resolved", ("key", "state", "root_cause", "ended", "chk"), "qqqdq")
PROGRESS = Table("progress", ("key", *PROGRESS_COLUMNS), "qqqqdydqqq", replacing("key", PROGRESS_COLUMNS))
LARGE = Table("large_refs", ("key", "sha256", "chk"), "qyq", "ON CONFLICT DO NOTHING")
KEYS = Table("node_keys", ("key", "concurrency_key", "chk"), "qtq")
DELAYS = Table("node_delays", ("key", "seconds", "until", "chk"), "qddq")
NAMES = Table("instance_names", ("instance", "definition", "name", "digest", "chk"), "qttyq")
LABELS = Table("labels", ("instance", "label", "value", "chk"), "qttq")
TURNS = Table("turns", ("instance", "fair", "turn", "chk"), "qtqq")

#: The fields of `Changes` that `rows_of` writes.
COVERED = frozenset(
    ("nodes", "outcomes", "blocks", "instances", "instance_ends", "resolved", "progress", "large", "keys", "names",
     "labels", "delays", "turns")
)  # fmt: skip


def rows_of(changes: Changes) -> Iterator[tuple[Table, list[Row]]]:
    """Yield the tables that get rows, each with its rows. No statement sees what another one of these writes."""
    ends = {end.key: end for end in changes.instance_ends}
    found: tuple[tuple[Table, Iterable[Row]], ...] = (
        (NODES, node_rows(changes.nodes)),
        (OUTCOMES, outcome_rows(changes.outcomes)),
        (BLOCKS, block_rows(changes.blocks)),
        (INSTANCES, _instances(changes, ends)),
        (RESOLVED, summed((key, int(state), c, float(ended)) for key, state, c, ended in changes.resolved)),
        (PROGRESS, progress_rows({row.key: row for row in changes.progress}.values())),
        (LARGE, summed(changes.large)),
        (KEYS, summed(changes.keys)),
        (NAMES, summed(changes.names)),
        (LABELS, summed(changes.labels)),
        (DELAYS, summed(changes.delays)),
        (TURNS, summed(changes.turns)),
    )
    for table, rows in found:
        if listed := list(rows):
            yield table, listed
    if ends:
        yield ENDS, [end_row(end) for end in ends.values()]


def _instances(changes: Changes, ends: dict[int, InstanceEnd]) -> Iterator[Row]:
    """Yield the rows of new instances, and take their ends out of `ends`."""
    for row in changes.instances:
        _, ended, failed, end_chk = end_row(ends.pop(row.key, InstanceEnd(row.key, None, False)))
        yield (*row, row_sum(row), ended, failed, end_chk)
