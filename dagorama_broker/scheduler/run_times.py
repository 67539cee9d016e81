"""Estimates how long the attempts of a function take, and counts them if that is wanted, and failed ones of a node."""

from __future__ import annotations

from dagorama_broker.model.domain import State

#: Microseconds that an attempt costs in addition to the function's own time, so that even empty functions fill a slot.
OVERHEAD_US = 15
#: Microseconds of work that a slot may hold; more would bend the order of nodes too much.
WINDOW_US = 20_000
#: Microseconds of work that one slot is granted before others get a share: a message to another slot takes as long.
SHORT_US = 500.0
#: Microseconds that a worker takes to compute the cache key of a node, or to take over a value, roughly.
LOOKUP_US = 60
#: Async nodes that one child process overlaps.
OVERLAP = 100
#: Entries of a histogram: one for each bit length of a 64-bit number.
BIT_LENGTHS = 65


class RunTimeEstimate:
    """Estimates how long attempts of a function take."""

    __slots__ = ("_is_async", "cost_us", "mean_us", "short_us")

    def __init__(self, is_async: bool) -> None:
        self._is_async = is_async
        self.mean_us: float | None = None  #: measured run time; None: the function has never run
        self.cost_us = self._cost()  #: what a node adds to a slot's work
        #: what a node adds to a slot's work if its run is no outlier: about the median; async nodes are never short
        self.short_us = float(WINDOW_US)

    def measured(self, microseconds: int) -> None:
        """Add a run time to the mean, which rises fast and falls slowly, because it is better to grant too little."""
        mean = self.mean_us
        if mean is None:
            self.mean_us = float(microseconds)
            median = self.mean_us or 1.0
        else:
            self.mean_us = mean + (microseconds - mean) * (0.25 if microseconds > mean else 0.05)
            median = self.short_us - OVERHEAD_US
            median *= 1.25 if microseconds > median else 0.8
        if self._is_async:
            self.cost_us = self._cost()
        else:  # as `_cost`, without a call: this is done for each node
            self.cost_us = int(self.mean_us) + OVERHEAD_US
            self.short_us = median + OVERHEAD_US

    def _cost(self) -> int:
        """Return the estimate. An unknown function fills the window; async nodes do not wait for one another."""
        cost = WINDOW_US if self.mean_us is None else int(self.mean_us) + OVERHEAD_US
        return min(cost, WINDOW_US // OVERLAP) if self._is_async else cost


class CachedRunTime(RunTimeEstimate):
    """Estimates the runs of a function whose values are cached, most of whose nodes are looked up and never run.

    For a slot, a node costs as much as a look-up, until it is known that it runs.
    """

    __slots__ = ("figures", "run_us")

    def __init__(self, is_async: bool) -> None:
        super().__init__(is_async)
        self.figures: FunctionFigures | None = None  #: counts the runs, if they are counted
        self._look_up_only()

    def measured(self, microseconds: int) -> None:
        """Add a run time; 0 stands for a value that was found."""
        if not microseconds:
            return
        if self.figures is not None:
            self.figures.ran(microseconds)
        super().measured(microseconds)
        self._look_up_only()

    def _look_up_only(self) -> None:
        self.run_us = self._cost()  #: what a node adds to a slot's work that is certain to run
        self.cost_us = LOOKUP_US
        if not self._is_async:
            self.short_us = float(LOOKUP_US)


class FunctionFigures:
    """Counts the ends and the runs of the nodes of a function."""

    __slots__ = ("ended", "microseconds", "runs")

    def __init__(self) -> None:
        self.ended = [0] * len(State)  #: nodes by their last state
        self.runs = [0] * BIT_LENGTHS  #: runs by the bit length of their microseconds
        self.microseconds = 0  #: of all runs

    def ran(self, microseconds: int) -> None:
        """Count a run."""
        self.runs[microseconds.bit_length()] += 1
        self.microseconds += microseconds


#: The figures of queues whose nodes are not counted.
UNCOUNTED = FunctionFigures()


class CountedRunTime(RunTimeEstimate):
    """Counts the run times that it is told."""

    __slots__ = ("_figures",)

    def __init__(self, is_async: bool, figures: FunctionFigures) -> None:
        super().__init__(is_async)
        self._figures = figures

    def measured(self, microseconds: int) -> None:
        figures = self._figures
        figures.runs[microseconds.bit_length()] += 1
        figures.microseconds += microseconds
        RunTimeEstimate.measured(self, microseconds)


class FailureCounts:
    """Counts the failed attempts of a node; most nodes never have one."""

    __slots__ = ("crashes", "failed_attempts", "failure", "lost_attempt", "note", "pause", "retry_at", "worker_losses")

    def __init__(self, failed_attempts: int = 0, crashes: int = 0, worker_losses: int = 0) -> None:
        self.failed_attempts = failed_attempts
        self.crashes = crashes
        self.worker_losses = worker_losses
        self.lost_attempt = 0  #: attempt of the last counted loss; 0: none, or it was uncounted
        self.failure: bytes | None = None  #: the last one; `Graph.keep_failure` sets it
        self.retry_at = 0.0  #: the scheduler's clock; 0: not in BACKOFF
        self.pause = 0.0  #: seconds of that BACKOFF
        self.note = ""  #: the reason of that BACKOFF, if it is neither a failure nor a delay; not stored

    @property
    def attempts(self) -> int:
        """The attempts that have failed or were lost."""
        return self.failed_attempts + self.crashes + self.worker_losses
