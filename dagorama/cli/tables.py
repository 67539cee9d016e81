"""How things look on a terminal: aligned columns, ids as their users see them, times of the reader's place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

#: Characters of a reason in a table; JSON has all of it.
LONGEST_CELL = 100


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under their heads, or that there are none."""
    if not rows:
        return f"no {heads[0]}s"
    lines = [heads, *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A name and a value on each line."""
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in pairs)


def _cell(text: str) -> str:
    line = " ".join(text.split())
    return (line if len(line) <= LONGEST_CELL else f"{line[: LONGEST_CELL - 3]}...") or "-"


def uuid_text(id: bytes) -> str | None:
    """An id as users see it; None: there is none."""
    return str(UUID(bytes=id)) if id else None


def time_text(seconds: float) -> str:
    """Seconds since 1970 as a local time; empty: none."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds") if seconds else ""


def counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
