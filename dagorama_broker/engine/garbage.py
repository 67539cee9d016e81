"""When this process looks for garbage in cycles: never over the whole graph in one go.

Nodes are freed by reference counting. A full collection goes over each of them nevertheless, and the loop stands still
for as long: more than a second for a million nodes. So young objects are collected as usual, and all of them only while
there are few.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sized

#: Objects after which the youngest are looked at, and such collections after which those that survived are.
YOUNG, SURVIVED = 10_000, 10
#: Full collections that are asked for before Python makes one by itself: never.
NEVER = 1_000_000_000
#: Seconds between two full collections, and nodes up to which one takes a few milliseconds.
EVERY, FEW = 600.0, 20_000
#: Collections that are left out, for there are more nodes, before one is made all the same.
LEFT_OUT = 144


def collect_young_only() -> None:
    """Have Python collect young objects only, and leave alone what there is already."""
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
