"""The first page: how much is done and waits, and what is wrong."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.models.state import State
from dagorama_dashboard.shown.charts import Spark, grouped, spark
from dagorama_dashboard.web.look import Look
from dagorama_dashboard.web.rendering import Content


class Range(NamedTuple):
    """A time that the charts show."""

    name: str
    label: str
    resolution: int  #: seconds between two points, as GetSeries knows them
    points: int
    together: int  #: points that are drawn as one


RANGES = (Range("5m", "5 min", 1, 300, 5), Range("1h", "1 h", 10, 360, 6), Range("24h", "24 h", 60, 1_440, 15))
#: Seconds over which the rates that are shown as numbers are taken.
RECENT = 10
#: Groups of failures, and functions that no worker may run, that are shown.
MOST_FAILURES, MOST_UNSCHEDULABLE = 5, 5


class Tile(NamedTuple):
    """A rate with its course."""

    label: str
    name: str  #: of its color
    now: float  #: per second
    total: int  #: in the range
    spark: Spark


async def overview(look: Look) -> Content:
    """Return the contents of the first page."""
    chosen = next((each for each in RANGES if each.name == look.query("range")), RANGES[0])
    status, series, latest, failures, instances = await asyncio.gather(
        look.recent("GetStatus", pb.GetStatusRequest(), 1.0),
        look.recent("GetSeries", pb.GetSeriesRequest(resolution=chosen.resolution), 1.0),
        look.recent("GetSeries", pb.GetSeriesRequest(resolution=1), 1.0),
        look.recent("ListFailures", pb.ListFailuresRequest(limit=MOST_FAILURES), 5.0),
        look.recent("ListInstances", pb.ListInstancesRequest(limit=8), 1.0),
    )
    return Content(
        "overview.html",
        "Overview",
        {
            "range": chosen,
            "ranges": RANGES,
            "tiles": list(_tiles(chosen, series, latest)),
            "nodes": list(status.nodes),
            "running": status.nodes[State.CLAIMED],
            "queued": status.nodes[State.QUEUED],
            "waiting": status.nodes[State.WAITING] + status.nodes[State.RESOLVING] + status.nodes[State.BACKOFF],
            "oldest": latest.oldest_queued,
            "store_bytes": latest.store_bytes,
            "slots": sum(worker.slots for worker in status.workers),
            "busy": sum(min(worker.held, worker.slots) for worker in status.workers),  # they fetch ahead
            "status": status,
            "unschedulable": status.unschedulable[:MOST_UNSCHEDULABLE],
            "paused": [queue for queue in status.queues if queue.paused_since],
            "failures": failures,
            "instances": instances.instances,
        },
        section="overview",
    )


def _tiles(chosen: Range, series: pb.Series, latest: pb.Series) -> list[Tile]:
    seconds = chosen.resolution
    tiles = []
    for label, name, column in (
        ("completed", "done", "completed"),
        ("failed", "failed", "failed"),
        ("created", "queued", "created"),
    ):
        values = [count / seconds for count in getattr(series, column)]
        recent = list(getattr(latest, column))[-RECENT:]
        now = sum(recent) / len(recent) if recent else 0.0
        course = [0.0] * (chosen.points - len(values)) + values  # the broker may have started later
        tiles.append(
            Tile(label, name, now, round(sum(values) * seconds), spark(grouped(course, chosen.together), top=1.0))
        )
    return tiles
