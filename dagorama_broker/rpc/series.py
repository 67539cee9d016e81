"""Answers to GetSeries: points of the last seconds, minutes and hours."""

from __future__ import annotations

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.series import LENGTHS
from dagorama_broker.errors import InvalidArgument


class SeriesReader:
    """Makes one answer a second for all who ask."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._latest: dict[int, tuple[int, pb.Series]] = {}  # by resolution, with the second in which it was made

    async def read(self, resolution: int) -> pb.Series:
        """Return the points of this length in seconds. Raise InvalidArgument if there are none."""
        resolution = resolution or 1
        if resolution not in LENGTHS:
            lengths = ", ".join(map(str, LENGTHS))
            raise InvalidArgument(f"no points of {resolution} seconds are kept; choose one of {lengths}")
        series = self._broker.series
        second, message = self._latest.get(resolution, (-1, pb.Series()))
        if second != series.second:
            size = await self._broker.commits.in_view(self._broker.store.size)
            message = self._message(resolution, size)
            self._latest[resolution] = series.second, message
        return message

    def _message(self, resolution: int, store_bytes: int) -> pb.Series:
        series = self._broker.series
        ages, ring = series.oldest, series.rings[resolution]
        columns = list(zip(*ring.points, strict=True)) or [()] * 7
        message = pb.Series(
            end=ring.end,
            resolution=resolution,
            oldest_queued=max(ages.values(), default=0.0),
            store_bytes=store_bytes,
            left_out=series.left_out,
        )
        names = "created", "completed", "failed", "cancelled", "waiting", "queued", "running"
        for name, column in zip(names, columns, strict=True):
            getattr(message, name).extend(column)
        for name, queue in sorted(series.queues.items(), key=lambda item: (-item[1].nodes, item[0])):
            message.queues.add(
                queue=name, queued=queue.queued, running=queue.running, oldest_queued=ages.get(name, 0.0)
            )
        return message
