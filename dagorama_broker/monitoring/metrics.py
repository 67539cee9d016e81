"""The metrics of a broker: answers scrapes. Exists only with --metrics-port."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from time import monotonic

from prometheus_client.core import Metric

from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.recorder import Recorder
from dagorama_broker.errors import StoreError
from dagorama_broker.model.queries import Usage
from dagorama_broker.monitoring.families import families
from dagorama_broker.monitoring.snapshot import Snapshot, taken
from dagorama_broker.scheduler import ReadyAges
from dagorama_broker.store.protocol import Store
from dagorama_monitoring.exposition import NotYet, Scrapes
from dagorama_monitoring.listener import Pages

log = logging.getLogger("dagorama_broker")

#: Seconds for which the size of the store is not read again.
USAGE_FRESH = 60.0


class Metrics:
    """The metrics of one broker; until `start` a scrape is told to come later."""

    def __init__(self) -> None:
        self._source: tuple[Broker, Recorder, ReadyAges] | None = None
        self._usage: StoreUsage | None = None
        self._scrapes = Scrapes(asyncio.get_running_loop(), self._snapshot, self._families)

    @property
    def pages(self) -> Pages:
        """The pages of a listener, by path."""
        return self._scrapes.pages

    def start(self, broker: Broker, recorder: Recorder) -> None:
        """Answer with the figures of this broker."""
        broker.recorder = recorder
        self._usage = StoreUsage(broker.store)
        self._source = broker, recorder, broker.series.ages

    def _snapshot(self) -> Snapshot:
        if self._source is None:
            raise NotYet("the broker is reading its store")
        self._source[0].see_time()
        return taken(*self._source)

    def _families(self, snapshot: Snapshot) -> Iterator[Metric]:
        assert self._usage is not None
        return families(snapshot, self._usage.read())


class StoreUsage:
    """Reads the size of a store, in any thread, and not at each scrape."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._latest: Usage | None = None
        self._read_at = -USAGE_FRESH

    def read(self) -> Usage | None:
        """Return the size; None if the store has no files, or it cannot be read, which is logged."""
        if monotonic() - self._read_at >= USAGE_FRESH:
            self._read_at = monotonic()
            try:
                self._latest = self._store.usage()
            except StoreError as error:
                self._latest = None
                log.warning("metrics lack the size of the store: %s", error)
        return self._latest
