"""Events of an instance while it runs, as `events(instance)` yields them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID


class EventKind(StrEnum):
    """The kind of a change of a node."""

    CREATED = "created"
    STARTED = "started"  #: granted to a worker
    RETRIED = "retried"  #: an attempt has failed or was lost, and there will be another
    COMPLETED = "completed"
    FAILED = "failed"  #: by itself, or because of another node
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """A change of a node."""

    kind: EventKind
    node_id: UUID
    function: str  #: "package.module:Class.method"
    time: float  #: seconds since 1970
    attempt: int = 0  #: of STARTED and RETRIED, from 1
    reason: str = ""  #: type and message of the failure, of RETRIED and FAILED
    retry_at: float = 0.0  #: seconds since 1970, of RETRIED: when the next attempt may start; 0: at once


@dataclass(frozen=True, slots=True)
class InstanceEnded:
    """The last event: no node is unfinished."""

    has_failed: bool  #: a node failed or was cancelled
    time: float  #: seconds since 1970


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap in the events: the reader was too slow, or the broker was restarted."""

    lost: int | None  #: how many; None: unknown


Event: TypeAlias = NodeEvent | InstanceEnded | Gap
