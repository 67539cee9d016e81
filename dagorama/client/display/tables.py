"""Format output for a terminal: aligned columns, IDs as UUIDs, times in the local time zone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from re import Match, compile
from uuid import UUID

from dagorama.api.contract import LATEST_START

#: On a terminal, longer table cells are truncated to this many characters; other output is never truncated.
MAX_CELL_CHARACTERS = 100
#: Control characters, and characters that change the direction of the text after them.
_CONTROLS = compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns below their heads, or a sentence if there are none."""
    if not rows:
        return f"no {heads[0]}s"
    lines = [heads, *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def key_values(pairs: Sequence[tuple[str, str]]) -> str:
    """Return one line for each pair of a name and a value, with the values aligned."""
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in pairs)


def _cell(text: str) -> str:
    line = " ".join(text.split())
    is_whole = len(line) <= MAX_CELL_CHARACTERS or not sys.stdout.isatty()
    return (line if is_whole else f"{line[: MAX_CELL_CHARACTERS - 3]}...") or "-"


def uuid_text(id: bytes) -> str | None:
    """Return an ID as a UUID in text form; None for an empty ID."""
    return str(UUID(bytes=id)) if id else None


def utc(seconds: float) -> datetime:
    """Return seconds since 1970 as a time, which is never later than a date can be: old brokers stored any number."""
    return datetime.fromtimestamp(min(seconds, LATEST_START), UTC)


def time_text(seconds: float) -> str:
    """Return seconds since 1970 as a local time; an empty text for 0."""
    return utc(seconds).astimezone().isoformat(timespec="seconds") if seconds else ""


def duration_text(microseconds: int) -> str:
    """Return a duration with its unit, such as `250 ms` or `3 min 20 s`; an empty text for 0."""
    seconds = microseconds / 1_000_000
    if not microseconds:
        return ""
    if seconds < 0.9995:
        return f"{microseconds / 1000:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def harmless(text: str) -> str:
    """Return a text in which characters that control a terminal are written as escapes, but tabs and newlines."""
    return _CONTROLS.sub(_escaped, text)


def _escaped(found: Match[str]) -> str:
    number = ord(found.group())
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def report_text(message: str, fraction: float | None) -> str:
    """Return what a node has reported in one line, such as `40 %  reading`."""
    line = _cell(harmless(message)) if message else ""
    return line if fraction is None else f"{fraction:.0%}  {line}".rstrip()


def run_seconds(microseconds: int) -> float | None:
    """Return microseconds as seconds; None for 0, which stands for an unknown duration."""
    return microseconds / 1_000_000 if microseconds else None


def pluralize(count: int, one: str, many: str) -> str:
    """Return the count followed by the singular or the plural form."""
    return f"{count} {one if count == 1 else many}"
