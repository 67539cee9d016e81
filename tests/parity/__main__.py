"""`python -m tests.parity` prints the table of docs/reference/testing.md."""

from tests.parity.stories import table

print(table())
