"""How the workers of a pool are started: the flags and the environment of the `worker` command, on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: The taint of nodes that need a GPU.
GPU = "GPU"
#: Seconds without a node after which a worker of a pool leaves.
IDLE_S = 60.0
#: Seconds beyond the grace period in which a worker that was told to leave sends its last reports.
LAST_REPORTS_S = 15.0


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The workers of one pool."""

    pool: str  #: the name of the pool, which begins the names of its workers
    concurrency: int = 1  #: child processes of each
    include_queues: tuple[str, ...] = ()
    exclude_queues: tuple[str, ...] = ()
    tolerations: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()  #: modules that every child imports first
    idle: float | None = IDLE_S  #: seconds without a node after which a worker leaves; None: it stays
    lifetime: float | None = None  #: seconds that it may live
    grace: float = 25.0  #: seconds that running nodes get when it is told to leave
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  #: may hold secrets

    def flags(self) -> list[str]:
        """Return the flags of the `worker` command, without its name."""
        flags = ["--concurrency", f"{self.concurrency}", "--grace", f"{self.grace:g}"]
        for flag, values in (
            ("--include-queue", self.include_queues), ("--exclude-queue", self.exclude_queues),
            ("--toleration", self.tolerations), ("--import", self.imports),
        ):  # fmt: skip
            for value in values:
                flags += [flag, value]
        if self.idle is not None:
            flags += ["--until", "idle", "--idle", f"{self.idle:g}"]
        if self.lifetime is not None:
            flags += ["--lifetime", f"{self.lifetime:g}"]
        return flags

    def name_of(self, member: str) -> str:
        """Return the name under which the broker knows the worker of a member."""
        return f"{self.pool}/{member}"
