"""A graph that grows while it runs, whose answer a plain function knows; a node may kill the process that runs it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from dagorama import DAGDefinition, dagorama

MIX = 2_654_435_761


def mixed(seed: int, place: int) -> int:
    return (seed * MIX + place * 40_503 + 12_345) % (1 << 31)


def width(seed: int) -> int:
    return 2 + seed % 2


def plain(depth: int, seed: int) -> int:
    """Compute the value of the graph in one process."""
    if not depth:
        return seed % 1_000
    return (seed + sum(plain(depth - 1, mixed(seed, place)) for place in range(width(seed)))) % 1_000_003


def is_struck(seed: int, every: int) -> bool:
    return bool(every) and seed % every == 0


class Growing(DAGDefinition):
    """Each branch makes branches, down to leaves, and a join of them. `strikes`: a folder, or empty for none."""

    @dagorama().syncfn
    def entrypoint(self, depth: int, seed: int, strikes: str = "", every: int = 0) -> int:
        return self.branch(depth, seed, strikes, every)

    @dagorama().syncfn
    def branch(self, depth: int, seed: int, strikes: str, every: int) -> int:
        if strikes and is_struck(seed, every):
            strike(Path(strikes), seed)
        if not depth:
            return seed % 1_000
        branches = [self.branch(depth - 1, mixed(seed, place), strikes, every) for place in range(width(seed))]
        return self.join(seed, branches)

    @dagorama().syncfn
    def join(self, seed: int, values: list[int]) -> int:
        return (seed + sum(values)) % 1_000_003


def strike(folder: Path, seed: int) -> None:
    """Kill what the folder's next order names: a file `child-N` or `supervisor-N`. Once an order, once a node."""
    for order in sorted(folder.glob("*-*")):
        try:
            (folder / f"{seed}.struck").touch(exist_ok=False)
            order.unlink()
        except FileExistsError:
            return  # this node had its turn
        except FileNotFoundError:
            return  # another was quicker
        victim = os.getpid() if order.name.startswith("child") else _parent_of(os.getppid())
        os.kill(victim, signal.SIGKILL)
        if victim != os.getpid():
            signal.pause()  # until the supervisor's end reaches this process
        return


def _parent_of(pid: int) -> int:
    """A child's parent is the fork server, and the fork server's is the supervisor."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
