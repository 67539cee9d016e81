"""What put() returns is typed as what it was given."""

from typing import assert_type

from dagorama import DAGDefinition, dagorama, put


class Table:
    rows: list[int]


class Task(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, table: Table) -> int:
        kept = put(table)
        assert_type(kept, Table)
        assert_type(put([1, 2]), list[int])
        self.count(put(b"bytes"), [put(table)])
        return self.count(put(b"bytes"), put([kept]))

    @dagorama().syncfn
    def count(self, raw: bytes, tables: list[Table]) -> int:
        return len(raw) + len(tables)

    @dagorama().syncfn
    def made(self) -> bytes:
        return put(b"bytes")
