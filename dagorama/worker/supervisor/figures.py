"""The state of a worker for probes and metrics: what it holds, what it has seen, and why it takes no nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dagorama.worker.run_times import OTHER, RunTimes
from dagorama.worker.supervisor.session import Session
from dagorama.worker.supervisor.slot import Slot
from dagorama.worker.supervisor.transfers import Transfers
from dagorama_monitoring.histogram import BIT_LENGTHS, Distribution, summed

#: Functions that metrics tell apart; the rest is counted together.
MOST_FUNCTIONS = 1_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures of one moment. Counts are those since the start of the worker."""

    slots: Mapping[str, int]  #: by state
    held: int  #: nodes, running or not
    runs: Mapping[str, Distribution]  #: microseconds by function
    deaths: Mapping[str, int]  #: child processes that ended, by cause
    is_connected: bool
    reconnects: int
    fetched: int  #: large values
    fetched_bytes: int
    unacknowledged: int  #: bytes of results


class Figures:
    """Reads the parts of one supervisor; its loop is the only caller of `taken`."""

    def __init__(
        self, slots: Sequence[Slot], session: Session, transfers: Transfers, run_times: Sequence[RunTimes]
    ) -> None:
        self._slots = slots
        self._session = session
        self._transfers = transfers
        self._run_times = run_times
        self._deaths = Counter[str]()
        self._welcomes = 0

    def died(self, cause: str) -> None:
        """Count a child process that was not told to exit; `cause` is one of a few words."""
        self._deaths[cause] += 1

    def welcomed(self) -> None:
        """Count a session with the broker that begins or goes on."""
        self._welcomes += 1

    def taken(self) -> Snapshot:
        """Return the figures of this moment."""
        return Snapshot(
            slots=Counter(_state(slot) for slot in self._slots),
            held=sum(map(len, self._slots)),
            runs=self._runs(),
            deaths=dict(self._deaths),
            is_connected=self._session.welcome is not None,
            reconnects=max(0, self._welcomes - 1),
            fetched=self._transfers.fetched,
            fetched_bytes=self._transfers.fetched_bytes,
            unacknowledged=self._session.unacknowledged,
        )

    def _runs(self) -> dict[str, Distribution]:
        found: dict[str, list[Distribution]] = {}
        for run_times in self._run_times:
            for name, counts, total in run_times.read():
                its = name if name in found or len(found) < MOST_FUNCTIONS else OTHER
                more = [0] * (BIT_LENGTHS - len(counts))
                found.setdefault(its, []).append(Distribution([*counts, *more], total))
        return {name: summed(distributions) for name, distributions in found.items()}


def _state(slot: Slot) -> str:
    if slot.closed:
        return "closed"
    if not slot.ready:
        return "starting"
    return "busy" if len(slot) else "idle"
