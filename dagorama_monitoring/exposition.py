"""The page /metrics: asks the event loop for a snapshot, and makes its text in the listener's thread.

The rule: the loop copies integers, at most once a second for all scrapers; all that takes time is done here. This
module needs the extra `dagorama[metrics]`, so it is imported only if metrics are served.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from http import HTTPStatus
from importlib.metadata import version
from platform import python_version
from time import monotonic
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from dagorama_monitoring.histogram import Distribution, buckets
from dagorama_monitoring.listener import Answer, Pages, Refused, Request

S = TypeVar("S")

#: Seconds for which a snapshot is used again.
FRESH = 1.0
#: Seconds that the event loop has to take a snapshot.
PATIENCE = 5.0
#: Bit lengths of microseconds that get a bucket: from 128 microseconds to 1.2 hours.
TIMES, MICROSECOND = range(7, 33), 1e-6
#: Bit lengths of counts that get a bucket: from 1 to 65,536.
COUNTS = range(17)


class NotYet(Exception):
    """There are no figures yet; the message says why."""


class Scrapes(Generic[S]):
    """Answers scrapes with the metrics of one process."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, snapshot: Callable[[], S], families: Callable[[S], Iterable[Metric]]
    ) -> None:
        """`snapshot` is called in `loop`, and may raise NotYet; `families` is called in the listener's thread."""
        self._loop = loop
        self._snapshot = snapshot
        self._families = families
        self._latest: S | None = None
        self._taken_at = 0.0
        self._one_at_a_time = asyncio.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    @property
    def pages(self) -> Pages:
        """The page of a listener, by path."""
        return {"/metrics": self._metrics}

    def describe(self) -> Iterable[Metric]:
        """Return no names: they are not checked for duplicates, because there is no snapshot yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the latest snapshot."""
        assert self._latest is not None
        yield build_info()
        yield from self._families(self._latest)

    async def _metrics(self, request: Request) -> Answer:
        async with self._one_at_a_time:
            if self._latest is None or monotonic() - self._taken_at >= FRESH:
                self._latest, self._taken_at = await self._taken(), monotonic()
            encode, kind = choose_encoder(request.headers.get("accept", ""))
            body = encode(self._registry)
        headers = [("Content-Type", kind), ("Vary", "Accept, Accept-Encoding")]
        if "gzip" in request.headers.get("accept-encoding", ""):
            body = gzip.compress(body, 5)
            headers.append(("Content-Encoding", "gzip"))
        return Answer(HTTPStatus.OK, body, tuple(headers))

    async def _taken(self) -> S:
        taken: Future[S] = Future()

        def take() -> None:
            if taken.set_running_or_notify_cancel():
                try:
                    taken.set_result(self._snapshot())
                except Exception as error:
                    taken.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(take)
            return await asyncio.wait_for(asyncio.wrap_future(taken), PATIENCE)
        except NotYet as error:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
        except (RuntimeError, TimeoutError):  # the loop is closed, or busy
            why = f"the event loop has not answered for {PATIENCE:g} seconds, or has ended"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, why) from None


# --- kinds of metrics -----------------------------------------------------------------------------------


def build_info() -> Metric:
    """Return the versions of this process."""
    info = gauge("dagorama_build_info", "Versions of this process; always 1", ("version", "python"))
    info.add_metric([version("dagorama"), python_version()], 1)
    return info


def gauge(name: str, text: str, labels: Sequence[str] = (), value: float | None = None) -> GaugeMetricFamily:
    """Return a metric that may rise and fall."""
    return GaugeMetricFamily(name, text, labels=list(labels) or None, value=value)


def counter(name: str, text: str, labels: Sequence[str] = (), value: float | None = None) -> CounterMetricFamily:
    """Return a metric that only rises; `name` ends with `_total`."""
    return CounterMetricFamily(name, text, labels=list(labels) or None, value=value)


def by_name(family: Metric, values: Iterable[tuple[str, float]]) -> Metric:
    """Return a metric with one label, after adding its values by name."""
    for name, value in values:
        family.add_metric([name], value)  # type: ignore[attr-defined]  # all kinds used here have it
    return family


def times(name: str, text: str, distribution: Distribution) -> HistogramMetricFamily:
    """Return a histogram in seconds of microseconds."""
    found = buckets(distribution, TIMES, MICROSECOND)
    return HistogramMetricFamily(name, text, buckets=found, sum_value=distribution.total * MICROSECOND)


def sizes(name: str, text: str, distribution: Distribution) -> HistogramMetricFamily:
    """Return a histogram of counts."""
    return HistogramMetricFamily(
        name, text, buckets=buckets(distribution, COUNTS, 1), sum_value=float(distribution.total)
    )


def times_by(name: str, text: str, label: str, values: Iterable[tuple[str, Distribution]]) -> HistogramMetricFamily:
    """Return a histogram in seconds for each value of a label."""
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, distribution in values:
        family.add_metric([value], buckets(distribution, TIMES, MICROSECOND), distribution.total * MICROSECOND)
    return family
