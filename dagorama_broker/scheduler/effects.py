"""Defines what the broker must send or forget once the changes of the same step are durable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from dagorama_broker.scheduler.objects import Node, Slot, Worker
from dagorama_broker.scheduler.queues import FunctionQueue
from dagorama_broker.scheduler.rates import ChangedLimit


class Granted(NamedTuple):
    slot: Slot
    node: Node
    attempt: int


class Obstacle(NamedTuple):
    """Queued nodes of one function that no connected worker may run."""

    queue: FunctionQueue  #: of the function, or of one of its concurrency keys
    queued: int
    reason: str


class TakenBack(NamedTuple):
    slot: Slot
    attempts: list[int]


@dataclass(slots=True)
class Effects:
    """Messages to send, and ended nodes, of one step."""

    granted: list[Granted] = field(default_factory=list)
    take_back: list[TakenBack] = field(default_factory=list)
    ended: list[Node] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)  #: keys of values that no unfinished node will be given
    refused: list[tuple[Worker, int]] = field(default_factory=list)  #: attempts that the worker does not hold
    cancelled: list[tuple[Worker, int]] = field(default_factory=list)  #: attempts that the worker must stop
    done: list[Worker] = field(default_factory=list)  #: workers that may leave
    left: dict[Worker, list[Obstacle]] = field(default_factory=dict)  #: for each worker in `done`: unschedulable nodes
    limits: list[ChangedLimit] = field(default_factory=list)  #: shared limits with other figures than before

    def __bool__(self) -> bool:
        told = self.granted or self.ended or self.take_back or self.refused or self.cancelled
        return bool(told or self.done)
