"""The systems that are compared: how each is started, what it is asked, and whether it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from peers.parts import PARTS, START

ROOT = Path(__file__).parents[2]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
BENCHMARKS = ROOT / "benchmarks"
ALL = (*PARTS, START)
#: A fan of 20,000 takes a task queue more than a minute. Its rate is the same for 2,000.
QUEUES = tuple(part for part in ALL if part != "wide")


@dataclass(frozen=True, slots=True)
class System:
    """One column of the table."""

    name: str
    title: str
    stack: str  #: MODULE:CLASS for `peers.measure`
    python: Path = PEERS_PYTHON
    module: str = ""  #: the package that the interpreter must have; empty if it runs this program too
    parts: tuple[str, ...] = ALL
    needs_redis: bool = False


OURS = System("dagorama", "dagorama", "peers.ours:Ours", Path(sys.executable))
PEERS = (
    System("executor", "`ProcessPoolExecutor(2)`", "peers.executor:Executor", Path(sys.executable),
           parts=("fan", "wide")),
    System("dask", "Dask", "peers.stacks.dask_stack:Dask", module="distributed"),
    System("ray", "Ray", "peers.stacks.ray_stack:Ray", module="ray"),
    System("celery-prefork", "Celery, prefork", "peers.stacks.celery_stack:Prefork", module="celery", parts=QUEUES,
           needs_redis=True),
    System("celery-threads", "Celery, threads", "peers.stacks.celery_stack:Threads", module="celery", parts=QUEUES,
           needs_redis=True),
    System("dramatiq", "dramatiq", "peers.stacks.dramatiq_stack:Dramatiq", module="dramatiq", parts=QUEUES,
           needs_redis=True),
)  # fmt: skip
TITLES = {system.name: system.title for system in (OURS, *PEERS)} | {"before": "dagorama before"}
#: Columns of each table of figures: more would make too wide a table.
TABLES = (("executor", "dask", "ray"), ("celery-prefork", "celery-threads", "dramatiq"), ("before",))


def before(python: Path) -> System:
    """Return another version of dagorama, as that interpreter has it, as a system."""
    return System("before", TITLES["before"], "peers.ours:Ours", python, module="dagorama")


def installed(systems: Iterable[System]) -> tuple[list[System], list[str]]:
    """Return the systems that can run here, and a sentence for each other one."""
    found, missing = [], []
    for system in systems:
        reason = _missing(system)
        if reason:
            missing.append(f"{system.title} is left out: {reason}.")
        else:
            found.append(system)
    return found, missing


def _missing(system: System) -> str:
    if not system.python.exists():
        return f"there is no {system.python}; run it with `make bench-peers`, which makes it"
    if system.module and not _has_module(system):
        return f"{system.python} does not have the package {system.module}; `make bench-peers` installs it"
    if system.needs_redis and shutil.which("redis-server") is None:
        return "it needs `redis-server`; on Debian and Ubuntu: apt install redis-server"
    return ""


def _has_module(system: System) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({system.module!r}) is None)"
    return not subprocess.run([system.python, "-c", code], check=False, cwd=BENCHMARKS).returncode
