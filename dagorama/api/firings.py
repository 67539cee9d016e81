"""Ids of what schedules start. Clients sign for a schedule, the broker names what it starts, and workers compare both.

The rule: the id of an instance that a schedule starts is computed from the schedule and the time. So a time never makes
two instances, and a broker cannot pass the signed arguments of a schedule off as the arguments of another node.
"""

from __future__ import annotations

from hashlib import sha256

from dagorama.api.contract import ORIGIN_BYTES

#: Bytes of an instance's id.
INSTANCE_BYTES = 16


def schedule_digest(definition: str, name: str) -> bytes:
    """Return 16 bytes that stand for a schedule: `definition` is the name of its class, `name` the schedule's id."""
    return sha256(f"schedule {len(definition)} {definition}{name}".encode()).digest()[:INSTANCE_BYTES]


def firing_instance(schedule: bytes, time: str) -> bytes:
    """Return the id of the instance that a schedule, by its digest, starts at a time such as 2026-11-25T07:00+01:00."""
    return sha256(b"firing " + schedule + time.encode()).digest()[:INSTANCE_BYTES]


def entry_node(instance: bytes) -> bytes:
    """Return the id of the only node that a schedule makes in an instance."""
    return instance[:ORIGIN_BYTES] + bytes(4)
