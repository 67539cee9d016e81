"""Figures, and how they are shown: a table for people, JSON for programs, and the machine."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from dagorama_broker.rpc.overview import version


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: its name, the median, its unit, and all runs."""

    workload: str
    figure: float
    unit: str
    runs: list[float]
    reach: str = ""  #: what it is to come to
    note: str = ""


def row(workload: str, runs: Iterable[float], unit: str, reach: str = "", note: str = "") -> Row:
    """Return the median of some runs."""
    found = list(runs)
    return Row(workload, median(found), unit, found, reach, note)


def share(values: list[float], part: float) -> float:
    """Return the value below which that part of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def machine() -> dict[str, object]:
    """Return the machine and the versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "dagorama": version(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        "processor": _processor(),
        "store": f"SQLite {sqlite3.sqlite_version}, WAL, synchronous=FULL (fsync at each commit)",
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def shown(rows: Iterable[Row]) -> str:
    """Return a table in Markdown."""
    lines = [("workload", "median", "reach", "runs", "note"), ("---",) * 5]
    lines += [(row.workload, f"{number(row.figure)} {row.unit}", row.reach, _runs(row.runs), row.note) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _runs(runs: list[float]) -> str:
    return ", ".join(map(number, runs)) if 1 < len(runs) <= 5 else ""


def number(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def write_json(file: Path, rows: Iterable[Row]) -> None:
    file.write_text(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def say(text: str) -> None:
    """Progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)
