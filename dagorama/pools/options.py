"""The options that all pools share, and their checks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import isfinite
from re import fullmatch
from typing import TypedDict

from dagorama.api.contract import MOST_SLOTS
from dagorama.pools.decision import Bounds
from dagorama.pools.worker_spec import GPU, IDLE_S, WorkerSpec
from dagorama.settings import Settings
from dagorama.settings.listing import worker_environment

#: Seconds without work after which a pool with `drain_idle` drains a worker.
DRAIN_AFTER_S = 300.0


class PoolKeywords(TypedDict, total=False):
    """The fields of `PoolOptions`, as keywords of the pools."""

    name: str
    max: int
    min: int
    concurrency: int
    include_queues: tuple[str, ...]
    exclude_queues: tuple[str, ...]
    tolerations: tuple[str, ...]
    imports: tuple[str, ...]
    idle: float
    grace: float | None
    drain_idle: bool
    horizon: float
    share: float


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How large a pool may become, and what its workers run. Raises ValueError if a value makes no sense."""

    name: str  #: of the pool, by which its members are found again: letters, digits, `-` and `_`
    max: int = 10  #: workers, at most
    min: int = 0  #: workers that stay, also without work
    concurrency: int = 1  #: child processes of each worker
    include_queues: tuple[str, ...] = ()  #: run only these queues; if empty, all
    exclude_queues: tuple[str, ...] = ()
    tolerations: tuple[str, ...] = ()  #: taints; engines add the taint of a GPU
    imports: tuple[str, ...] = ()  #: modules that each child process imports first
    idle: float = IDLE_S  #: seconds without a node after which a worker leaves
    grace: float | None = None  #: seconds that running nodes get when a worker is told to leave; None: DAGORAMA_GRACE
    drain_idle: bool = False  #: also drain workers above `min` that were idle for five minutes
    horizon: float = 10.0  #: seconds of work for which one slot is enough
    share: float = 1.0  #: the part of the ready work that is for this pool, if others run the same queues

    def __post_init__(self) -> None:
        if not fullmatch("[A-Za-z0-9_-]{1,60}", self.name):
            raise ValueError(f"the name of a pool has 1 to 60 letters, digits, - and _: not {self.name!r}")
        if not 0 <= self.min <= self.max or self.max < 1:
            raise ValueError(f"min is {self.min} and max is {self.max}: 0 <= min <= max and 1 <= max are needed")
        if not 1 <= self.concurrency <= MOST_SLOTS:
            raise ValueError(f"concurrency is {self.concurrency}: a worker has 1 to {MOST_SLOTS:,} child processes")
        for name, value in (("idle", self.idle), ("grace", self.grace or 0.0), ("horizon", self.horizon)):
            if not isfinite(value) or value < 0 or (value == 0 and name != "grace"):
                raise ValueError(f"{name} is {value}: it must be a number of seconds")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}: more than 0 and at most 1 is allowed")

    @classmethod
    def of(cls, name: str, keywords: PoolKeywords) -> PoolOptions:
        """Return the options of keywords; `name` is used if they have none."""
        keywords.setdefault("name", name)
        return cls(**keywords)

    def with_gpu(self, has_gpu: bool) -> PoolOptions:
        """Return the options of a pool whose workers have a GPU: they tolerate its taint."""
        return replace(self, tolerations=(GPU, *self.tolerations)) if has_gpu and GPU not in self.tolerations else self

    @property
    def bounds(self) -> Bounds:
        """Return the bounds of a decision."""
        return Bounds(self.concurrency, self.min, self.max, DRAIN_AFTER_S if self.drain_idle else None)

    def worker(self, lifetime: float | None = None) -> WorkerSpec:
        """Return how its workers are started, with the address and the access of this process. Raises SettingsError."""
        shared = {name: value for name, value in asdict(self).items() if name in WorkerSpec.__dataclass_fields__}
        shared["grace"] = Settings.from_env().grace if self.grace is None else self.grace
        return WorkerSpec(pool=self.name, lifetime=lifetime, environment=worker_environment(), **shared)
