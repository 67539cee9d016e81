"""How the workers that this process has launched ended, for waits in this process that depend on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Says how all workers of one launch_workers() block have ended; empty: not all of them have.
HowEnded = Callable[[], str]

_blocks: list[HowEnded] = []


@contextmanager
def reporting(how_ended: HowEnded) -> Iterator[None]:
    """Within the block, `ended_workers` asks this too."""
    _blocks.append(how_ended)
    try:
        yield
    finally:
        _blocks.remove(how_ended)


def ended_workers() -> str:
    """A sentence about workers that were launched here and have all ended; empty if there are none, or one is alive."""
    found = [how_ended() for how_ended in list(_blocks)]
    return "; ".join(found) if all(found) else ""
