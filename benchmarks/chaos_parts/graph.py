"""A graph that grows while it runs and leaves evidence outside the product.

Each execution draws a token and writes a line to a file of its own process when it starts and when it ends. Each value
carries the token of the execution that made it, so that two recorded results of one node would be seen by two readers.
Each child is told the token of the execution that made it, so that a child of an attempt that did not count is seen.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from time import sleep
from typing import NamedTuple
from zlib import crc32

from dagorama import DAGDefinition, dagorama

WIDTH = 3
#: One in this number of nodes with branches sleeps, long enough to be hit.
SLOW_EVERY, SLOW = 8, 0.6


class Made(NamedTuple):
    """The result of a node: its value, and the tokens of all executions below it by label."""

    value: int
    tokens: dict[str, str]
    torn: int  #: labels of which two readers saw different tokens


class Execution:
    """One run of one node, written down."""

    def __init__(self, folder: str, label: str, parent: str) -> None:
        self.token = secrets.token_hex(6)
        self._file = Path(folder) / f"{os.getpid()}.log"
        self._line = f"{label} {parent} {self.token}"
        self._write("start")

    def made(self, label: str, value: int, below: dict[str, str], torn: int = 0) -> Made:
        self._write("end")
        return Made(value, {label: self.token, **below}, torn)

    def _write(self, what: str) -> None:
        descriptor = os.open(self._file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        try:
            os.write(descriptor, f"{what} {self._line}\n".encode())
        finally:
            os.close(descriptor)


def leaf_value(label: str) -> int:
    return crc32(label.encode()) % 1_000


def plain(depth: int, label: str) -> int:
    """Compute the same result in one process."""
    if not depth:
        return leaf_value(label)
    return (1 + sum(plain(depth - 1, f"{label}.{place}") for place in range(WIDTH))) % 1_000_003


def nodes_in(depth: int) -> int:
    """Branches, and a join, an audit and a check for each that is not a leaf."""
    if not depth:
        return 1
    return 4 + WIDTH * nodes_in(depth - 1)


class Chaos(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, folder: str, depth: int, label: str) -> Made:
        return self.branch(folder, depth, label, "-")

    @dagorama().syncfn
    def branch(self, folder: str, depth: int, label: str, parent: str) -> Made:
        run = Execution(folder, label, parent)
        if depth and crc32(label.encode()) % SLOW_EVERY == 0:
            sleep(SLOW)
        if not depth:
            return run.made(label, leaf_value(label), {})
        below = [self.branch(folder, depth - 1, f"{label}.{place}", run.token) for place in range(WIDTH)]
        joined = self.join(folder, label, run.token, below)
        audited = self.audit(folder, label, run.token, below)
        # A reader would miss this: the end of this execution, since its value is another node's.
        run.made(label, 0, {})
        return self.check(folder, label, run.token, joined, audited)

    @dagorama().syncfn
    def join(self, folder: str, label: str, parent: str, below: list[Made]) -> Made:
        run = Execution(folder, f"{label}/join", parent)
        tokens = {name: token for made in below for name, token in made.tokens.items()}
        value = (1 + sum(made.value for made in below)) % 1_000_003
        return run.made(f"{label}/join", value, tokens, sum(made.torn for made in below))

    @dagorama().syncfn
    def audit(self, folder: str, label: str, parent: str, below: list[Made]) -> dict[str, str]:
        run = Execution(folder, f"{label}/audit", parent)
        tokens = {name: token for made in below for name, token in made.tokens.items()}
        run.made(f"{label}/audit", 0, {})
        return {**tokens, f"{label}/audit": run.token}

    @dagorama().syncfn
    def check(self, folder: str, label: str, parent: str, joined: Made, audited: dict[str, str]) -> Made:
        run = Execution(folder, f"{label}/check", parent)
        torn = sum(audited.get(name, token) != token for name, token in joined.tokens.items())
        tokens = {**audited, **joined.tokens, label: parent}
        return run.made(f"{label}/check", joined.value, tokens, joined.torn + torn)
