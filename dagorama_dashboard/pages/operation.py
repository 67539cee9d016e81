"""Workers, queues, schedules, and failures of all instances."""

from __future__ import annotations

from typing import NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama_dashboard.shown.charts import Spark, spark
from dagorama_dashboard.web.look import Look
from dagorama_dashboard.web.rendering import Content

#: Groups of failures on a page.
MOST_FAILURES = 50
#: Schedules on a page.
MOST_SCHEDULES = 200
#: Points of the course of a queue: one for each second.
POINTS = 300
#: Slots of a worker that are drawn; the rest is a number.
MOST_SLOTS = 64
#: Running nodes that are named on the page of workers, and of them on the card of one worker.
MOST_RUNNING, ON_A_CARD = 500, 8
#: Pages of the status that are read: thousands of workers or queues.
MOST_PAGES = 20


async def whole_status(look: Look, running: int = 0) -> pb.Status:
    """Return the status with its lists, which arrive in pages, and the names of this many running nodes."""
    asked = pb.GetStatusRequest(running=running)
    found: pb.Status
    found = page = await look.recent("GetStatus", asked, 0.4)
    if not page.more:
        return found
    whole = pb.Status()
    whole.CopyFrom(found)
    for _ in range(MOST_PAGES):
        if not page.more:
            break
        asked.after_worker, asked.after_function = page.last_worker, page.last_function
        asked.after_queue = page.last_queue
        asked.running = max(0, running - sum(len(worker.running) for worker in whole.workers))
        page = await look.ask("GetStatus", asked)
        whole.workers.extend(page.workers)
        whole.queues.extend(page.queues)
        whole.unschedulable.extend(page.unschedulable)
    whole.more = page.more
    return whole


async def workers(look: Look) -> Content:
    """Return the workers that are connected."""
    status = await whole_status(look, MOST_RUNNING)
    found = sorted(status.workers, key=lambda worker: (worker.name, worker.worker))
    values = {"workers": found, "most_slots": MOST_SLOTS, "on_a_card": ON_A_CARD, "status": status}
    return Content("workers.html", "Workers", values, section="workers")


class Queue(NamedTuple):
    """A queue and its last minutes."""

    info: pb.QueueInfo
    oldest: float  #: seconds; 0: no node is queued, or it is not known
    spark: Spark
    unschedulable: list[pb.Unschedulable]


async def queues(look: Look) -> Content:
    """Return the queues that hold nodes, held nodes a short while ago, or are paused."""
    status = await whole_status(look)
    series = await look.recent("GetSeries", pb.GetSeriesRequest(resolution=1), 0.9)
    by_name = {each.queue: each for each in series.queues}
    infos = {info.queue: info for info in status.queues}
    found = []
    for name in sorted({*infos, *by_name}):
        course = by_name.get(name, pb.QueueSeries())
        values = [0.0] * (POINTS - len(course.queued))
        values += [queued + running for queued, running in zip(course.queued, course.running, strict=True)]
        stuck = [each for each in status.unschedulable if each.function.queue == name]
        found.append(Queue(infos.get(name, pb.QueueInfo(queue=name)), course.oldest_queued, spark(values, 1.0), stuck))
    return Content("queues.html", "Queues", {"queues": found, "status": status}, section="queues")


async def schedules(look: Look) -> Content:
    """Return schedules by their IDs, with their next times and last instances."""
    asked = pb.ListSchedulesRequest(after=look.query("after"), limit=MOST_SCHEDULES)
    found = await look.recent("ListSchedules", asked, 0.9)
    return Content("schedules.html", "Schedules", {"found": found}, section="schedules")


async def failures(look: Look) -> Content:
    """Return failed nodes, grouped by their errors."""
    asked = pb.ListFailuresRequest(definition=look.query("definition"), limit=MOST_FAILURES)
    found = await look.recent("ListFailures", asked, 2.0)
    return Content("failures.html", "Failures", {"found": found}, section="failures")
