"""Records: the workers that a test gives to a world, and the attempts that the world has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from dagorama.settings import WorkerOptions


@dataclass(frozen=True, slots=True)
class SimulatedWorker:
    """A worker of an inline world: the queues that it takes, and the taints that it tolerates."""

    name: str = "worker"
    include_queues: Sequence[str] = ()  #: if empty, all queues
    exclude_queues: Sequence[str] = ()
    tolerations: Sequence[str] | None = None  #: None: every taint

    def __post_init__(self) -> None:
        """Raise TypeError if a text is given in place of a sequence of texts."""
        for name in ("include_queues", "exclude_queues", "tolerations"):
            given = getattr(self, name)
            if isinstance(given, str) or not all(isinstance(each, str) for each in given or ()):
                raise TypeError(
                    f"SimulatedWorker got {name}={given!r}: it must be a sequence of texts, such as ['GPU']"
                )

    @property
    def options(self) -> WorkerOptions:
        """The options that a real worker would have."""
        return WorkerOptions(tuple(self.include_queues), tuple(self.exclude_queues), tuple(self.tolerations or ()))


@dataclass(slots=True)
class NodeRun:
    """One attempt of a node in an inline world."""

    function: str  #: "package.module:Class.method"
    instance_id: UUID
    node_id: UUID
    attempt: int  #: 1 for the first attempt; an attempt whose worker died or was lost is not counted
    worker: str  #: the name of the simulated worker
    at: float  #: seconds since the start of the world
    args: tuple[Any, ...] = ()  #: as the function got them, without `self`
    kwargs: dict[str, Any] = field(default_factory=dict)
    result: Any = None  #: what it returned; None while it runs, and if it did not return
    error: BaseException | None = None  #: what it raised, the object itself
    died: bool = False  #: whether its worker died or was lost instead of running it
