"""A worker of an inline world, as a test describes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
