"""The part of a system that a pool needs: it starts workers, says which are there, and tells some to leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

from dagorama.errors import DagoramaError
from dagorama.pools.worker_spec import WorkerSpec
from dagorama_monitoring.documentation import documented


class EngineRefused(DagoramaError):
    """The engine of a pool cannot start or find workers now, or its library is missing; the message says why."""

    __notes__ = documented(__name__)


def text_of(error: BaseException) -> str:
    """Return what an error of an engine says, in one line."""
    return " ".join(f"{error}".split()) or type(error).__name__


class Phase(Enum):
    """How far a member of a pool is. An ended one is not a member."""

    PENDING = "pending"  #: the engine was asked for it, and has not started it
    RUNNING = "running"  #: its worker was started


class Engine(Protocol):
    """A system that runs the workers of one pool.

    It knows its members by what the system remembers, such as the name of a job, so that a pool which is started again
    finds them. Methods are called by one thread, and raise EngineRefused.
    """

    def start(self, n: int, worker: WorkerSpec) -> list[str]:
        """Ask for `n` workers; return the IDs of the requested ones, which may be fewer.

        A worker must be named `worker.name_of(id)`, so that the broker's workers and the members can be compared.
        """
        ...

    def alive(self) -> Mapping[str, Phase]:
        """Return the members by their IDs, oldest first."""
        ...

    def drain(self, ids: Sequence[str]) -> None:
        """Tell workers to leave as SIGTERM does, and withdraw pending ones. Unknown IDs are skipped. Do not wait."""
        ...
