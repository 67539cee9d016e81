"""Instances that several tests draw."""

from __future__ import annotations

from dagorama.models.state import State
from tests.dashboard.browser.made_up import MadeUpInstance

FLOW = "flow:Flow."


def diamond() -> MadeUpInstance:
    """Draw from: one, two of it, and one of both; the entry point has created them all."""
    made = MadeUpInstance()
    (entry,) = made.add(FLOW + "entrypoint", run=2_000, ended=5)
    (first,) = made.add(FLOW + "first", creator=entry, run=4_000, ended=10, worker="host-1")
    (left,) = made.add(FLOW + "left", creator=entry, sources=(first,), run=6_000, ended=20, worker="host-1")
    (right,) = made.add(FLOW + "right", creator=entry, sources=(first,), state=State.CLAIMED, since=12, worker="host-2")
    made.add(FLOW + "join", creator=entry, sources=(left, right), state=State.WAITING)
    return made


def recursion() -> MadeUpInstance:
    """A function that calls itself, and two that call one another."""
    made = MadeUpInstance()
    (entry,) = made.add(FLOW + "entrypoint", run=2_000, ended=5)
    (fibonacci,) = made.add(FLOW + "fibonacci", creator=entry, run=2_000, ended=9)
    made.add(FLOW + "fibonacci", 7, creator=fibonacci, run=2_000, ended=12)
    (visit,) = made.add(FLOW + "visit", creator=entry, run=2_000, ended=9)
    (expand,) = made.add(FLOW + "expand", creator=visit, run=2_000, ended=9)
    made.add(FLOW + "visit", 3, creator=expand, run=2_000, ended=9)
    return made


def fan(size: int = 20_000) -> MadeUpInstance:
    """An entry point, many nodes that it has created, and one that needs them all; some run, and two have failed."""
    made = MadeUpInstance()
    (entry,) = made.add(FLOW + "entrypoint", state=State.RESOLVING, run=9_000)
    works = made.add(FLOW + "work", size, creator=entry, created=30, run=20_000, worker="host-1")
    for place, ordinal in enumerate(works):
        made.nodes[ordinal - 1].ended = 60 + place
    for ordinal in works[size // 2 : size // 2 + 8]:
        node = made.nodes[ordinal - 1]
        node.state, node.ended, node.run, node.since = State.CLAIMED, 0, 0, ordinal
    for ordinal in works[size // 2 + 8 :]:
        made.nodes[ordinal - 1].state = State.QUEUED
        made.nodes[ordinal - 1].ended = made.nodes[ordinal - 1].run = 0
    for ordinal in (works[size // 10], works[size // 5]):
        made.nodes[ordinal - 1].state, made.nodes[ordinal - 1].attempts = State.FAILED, 3
    made.add(FLOW + "join", creator=entry, sources=tuple(works), state=State.WAITING)
    return made
