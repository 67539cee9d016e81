"""Limits that the system sets for a process: its open files and its address space.

The rule: a program that cannot run within them says so at its start, because gRPC would hang or abort later.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from logging import Logger

#: Bytes of address space below which no program starts. A worker reserves 600 MB if it may, a broker 800.
LEAST = 512 << 20
#: The advice if there are too few open files.
RAISE_FILES = "raise the hard limit (LimitNOFILE= in systemd, --ulimit nofile= of a container)"


def raised_open_files(needed: int, log: Logger | None = None) -> int:
    """Raise the soft limit of open files as far as needed and allowed; return it, or `needed` if that is enough.

    `log` gets a line if the limit was raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    aim = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if aim == soft:
        return soft
    with suppress(ValueError, OSError):  # a kernel or a container may allow less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (aim, hard))
        if log is not None:
            log.info("the limit of open files was raised from %d to %d", soft, aim)
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def refusal_of_address_space(program: str) -> str:
    """Return why a program cannot run in the address space that it has, and what to do; empty: it can.

    Threads reserve addresses that they never use. If the system refuses one, gRPC waits for a thread forever.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or limit >= LEAST:
        return ""
    return (
        f"this process may reserve {limit >> 20} MiB of addresses (ulimit -v), and {program} needs {LEAST >> 20}: raise"
        " this limit, or limit the memory of the container or cgroup instead"
    )
