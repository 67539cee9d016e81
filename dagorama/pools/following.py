"""The latest demand of a pool, which a thread of its own receives from the broker."""

from __future__ import annotations

import threading
from types import TracebackType

from dagorama.api import broker_pb2
from dagorama.client.connection import Connection
from dagorama.client.demand import BrokerAway, Demand, DemandWatch


class LatestDemand:
    """Follows the broker within a `with` block. `wait` returns when there is news."""

    def __init__(self, broker: Connection, request: broker_pb2.DemandRequest) -> None:
        self._watch = DemandWatch(broker, request)
        self._thread = threading.Thread(target=self._follow, name="dagorama-pool-demand", daemon=True)
        self._news = threading.Event()
        self._demand: Demand | None = None
        self._away = ""
        self._error: BaseException | None = None

    def __enter__(self) -> LatestDemand:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.close()
        self._thread.join()

    def wait(self, seconds: float) -> None:
        """Return when there is news, or `wake` is called, or the time is over."""
        self._news.wait(seconds)
        self._news.clear()

    def wake(self) -> None:
        """Let `wait` return."""
        self._news.set()

    @property
    def now(self) -> Demand | BrokerAway | None:
        """The demand, or why it is not known; None: the broker was not heard yet. Raises BrokerError if it refuses."""
        if self._error is not None:
            raise self._error
        return BrokerAway(self._away) if self._away else self._demand

    def _follow(self) -> None:
        try:
            for news in self._watch:
                if isinstance(news, Demand):
                    self._demand, self._away = news, ""
                else:
                    self._away = news.why
                self._news.set()
        except BaseException as error:  # the thread of the pool raises it
            self._error = error
            self._news.set()
