"""Schedules: the page that lists them, and how a person pauses, resumes or removes one."""

from __future__ import annotations

from dagorama.api import broker_pb2 as pb
from dagorama_dashboard.web.look import Look
from dagorama_dashboard.web.rendering import Content

#: Schedules on a page.
ON_PAGE = 200


async def schedules(look: Look) -> Content:
    """Return schedules by their ids, with their next times and last instances."""
    asked = pb.ListSchedulesRequest(after=look.query("after"), limit=ON_PAGE)
    found = await look.recent("ListSchedules", asked, 0.9)
    return Content("schedules.html", "Schedules", {"found": found}, section="schedules")


async def change(look: Look, action: str, id: str) -> str:
    """Pause, resume or remove a schedule; return what was done as a sentence."""
    if action == "remove-schedule":
        await look.ask("RemoveSchedule", pb.RemoveScheduleRequest(id=id))
        return f"The schedule {id} is removed"
    resume = action == "resume-schedule"
    reply = await look.ask("PauseSchedule", pb.PauseScheduleRequest(id=id, resume=resume))
    state = "goes on" if resume else "is paused"
    return f"The schedule {id} {state}{'' if reply.changed else ' already'}"
