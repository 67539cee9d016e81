"""Configures Python's garbage collector, so that it never traverses the whole graph at once.

Nodes are freed by reference counting. A full collection traverses each of them nevertheless and blocks the loop: for
more than a second with a million nodes. So young objects are collected as usual, and all while there are few nodes.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sized

#: New objects after which the youngest are collected, and such collections after which the survivors are.
YOUNG, SURVIVED = 10_000, 10
#: Collections of survivors after which Python makes a full one by itself: never.
NEVER = 1_000_000_000
#: Seconds between two full collections, and nodes up to which one takes a few milliseconds.
EVERY, FEW = 600.0, 20_000
#: Full collections that are skipped because of many nodes, before one is made nevertheless.
LEFT_OUT = 144


def collect_young_only() -> None:
    """Make Python collect young objects only, and exclude those that exist already."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, SURVIVED, NEVER)


async def collect_when_few(nodes: Sized) -> None:
    """Make full collections while there are few nodes, until cancelled."""
    left_out = 0
    while True:
        await asyncio.sleep(EVERY)
        if len(nodes) <= FEW or left_out == LEFT_OUT:
            gc.collect()
            left_out = 0
        else:
            left_out += 1
